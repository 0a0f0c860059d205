"""What the engine keeps of the past: a transformers cache layer with growing buffers and keys rotated once, when written."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from longreach.core.bands import Band, Computed, PositionMap, Selection
from longreach.core.errors import LongreachError
from longreach.core.inserted import Inserted
from longreach.core.memory import Carried, Store, View
from longreach.engine._accounts import ACCOUNTS
from longreach.engine._channels import Change, Channels
from longreach.engine._cuts import ROLLBACK, CutStore, StoreRow
from longreach.engine._seats import seats
from longreach.engine._stream import Stream

AnyStore = CutStore[Any, Any]
CLOSED = "this cache was filled under a longreach method that is no longer applied; start with a new cache"
OUTSIDE = "this cache was filled outside the applied longreach method; start with a new cache"
HALF_WRITTEN = "this cache was left half written by an interrupted forward pass; start with a new cache"
HIDDEN = "hidden"  # the channel of hidden states that another layer got, [B, 1, n, hidden size]
AGES = "ages"  # the channel of what tokens age each other by, [B, H, n, 1]


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What a layer keeps, derived from its bands.

    num_sinks: first tokens of every row. window: last tokens (None: all). maps, sink_maps: position maps with a rotated copy each.
    raw: also the unrotated keys (the frequencies, or where keys are placed, will change, or a policy looks at them). accounts: also what
    queries left with each token. entropy: also how surprising each was. hidden: also the hidden states of another layer. chunk: tokens of
    the chunks that queries choose from, whose queries are kept until the chunk is full; or last queries that a method looks at again.
    inserts: it keeps inserted tokens, too. only_bands: what queries see is told by distance alone.
    """

    num_sinks: int
    window: int | None
    maps: tuple[PositionMap, ...]
    sink_maps: tuple[PositionMap, ...]
    raw: bool = False
    accounts: tuple[str, ...] = ()
    entropy: bool = False
    hidden: bool = False
    chunk: int | None = None
    inserts: bool = False
    only_bands: bool = False

    @classmethod
    def of(cls, views: Iterable[View], *, keep_all: bool = False, raw: bool = False) -> "LayerPlan":
        """The least that these bands and selections need."""
        bands = [view for view in views if isinstance(view, Band)]
        chosen = [view for view in views if isinstance(view, Selection)]
        computed = [view for view in views if isinstance(view, Computed)]
        recent = [band for band in bands if band.sinks is None]
        first = [band for band in bands if band.sinks is not None]
        inserted = [view for view in views if isinstance(view, Inserted)]
        reach = [*(band.reach for band in recent), *(view.reach for view in inserted), *(view.reach for view in computed)]
        stores = [view for view in views if isinstance(view, Store)]
        bounded = not keep_all and None not in reach and not chosen and not stores
        return cls(
            num_sinks=max((band.sinks or 0 for band in first), default=0),
            window=max((hi + 1 for hi in reach if hi is not None), default=0) if bounded else None,
            maps=tuple(
                dict.fromkeys(
                    [
                        *(band.keys for band in recent),
                        *(view.keys for view in inserted),
                        *(view.positions for view in computed),
                        *(m for s in (*chosen, *stores) for m in s.maps),
                    ]
                )
            ),
            sink_maps=tuple(dict.fromkeys(band.keys for band in first)),
            raw=raw or any("keys" in store.signals or getattr(store, "packed", False) for store in stores),
            accounts=tuple(name for name in ACCOUNTS if any(name in store.signals for store in stores)),
            entropy=any("entropy" in store.signals for store in stores),
            hidden=any(isinstance(store, Carried) for store in stores),
            chunk=next(
                iter(
                    [
                        *(view.chunk for view in chosen if view.finders is None),
                        *(view.chunk for view in computed if view.summarizer is not None),
                        *(view.queries for view in computed if view.queries),
                    ]
                ),
                None,
            ),
            inserts=bool(inserted),
            only_bands=len(bands) == len(list(views)),
        )


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a layer holds at one time, and its store: all that a snapshot has to keep of them.

    Left out are copies of the keys that are made again when they are needed.
    """

    tokens: int
    batch: int
    recent: Channels
    first: dict[object, Tensor]
    first_filled: bool
    epoch: tuple[int, ...] | None
    queries: Channels
    summaries: Tensor | None
    rows: dict[int, StoreRow[Any]]
    scale: float
    softcap: float | None
    parts: tuple["Held", ...] = ()  # of groups of heads
    inserted: dict[object, Tensor] = field(default_factory=dict)


class BandLayer(CacheLayerMixin):
    """A transformers cache layer. `update` only hands over the new keys; the engine rotates and writes them."""

    is_sliding = False
    is_croppable = True  # the tokens of the last forward pass, which is what assisted decoding asks; further, `crop` refuses

    def __init__(self, plan: LayerPlan, stream: Stream, leads: bool, store: AnyStore | None = None) -> None:
        super().__init__()
        self.store = store
        self.batch = 1
        self.plan, self.stream, self.leads = plan, stream, leads
        self.recent = Channels()
        self.first: dict[object, Tensor] = {}
        self.first_filled = False
        self.pending: tuple[Tensor, Tensor] | None = None
        self.tokens = 0
        self.epoch: tuple[int, ...] | None = None
        self.mixed = False  # whether some keys lie under other frequencies than those of the epoch
        # Of chunks that queries choose from: the unrotated queries of the last tokens, and the summaries [B, H, n, E] of full chunks.
        self.queries = Channels()
        self.summaries: Tensor | None = None
        # Copies of the keys made when they are needed: of a row (-1: of all rows), under which map, how many tokens, [B, K, n, D].
        self.placed: dict[int, tuple[PositionMap, int, Tensor]] = {}
        self.memos: dict[int, dict[object, Any]] = {}  # of a method that sees what is far away as it computes it: of a row, or all
        self.inserted: dict[object, Tensor] = {}  # keys, unrotated, and values of inserted tokens, [B, K, E, D]; never changed in place
        self.index = -1

    def row(self, index: int) -> "BandLayer":
        """The layer of one row of the batch: views of its tensors, and what is made of them."""
        row = copy.copy(self)
        row.index, row.recent, row.queries = index, self.recent.row(index), self.queries.row(index)
        row.first = {name: tensor[index : index + 1] for name, tensor in self.first.items()}
        row.summaries = None if self.summaries is None else self.summaries[index : index + 1]
        row.inserted = {name: tensor[index : index + 1] for name, tensor in self.inserted.items()}
        return row

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare: buffers are made at the first write."""
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Take the new, unrotated keys and values [B, K, T, D]."""
        if self.stream.closed:
            raise LongreachError(CLOSED)
        if self.pending is not None:
            raise LongreachError(HALF_WRITTEN)
        self.is_initialized = True
        count = key_states.shape[2] - seats()
        self.pending = (key_states[:, :, :count], value_states[:, :, :count])
        self.tokens += count
        return key_states, value_states

    def write(self, channels: dict[object, Tensor], sinks: dict[object, Tensor]) -> None:
        """Store the pending tokens: `channels` for the window, `sinks` as the first tokens of each row."""
        self.pending = None
        before = self.tokens - next(iter(channels.values())).shape[2]
        if self.plan.num_sinks and not self.first_filled:
            self.write_sinks(sinks, before)
        self.batch = next(iter(channels.values())).shape[0]
        self.recent.append(channels)

    def forget(self) -> None:
        """Drop what no later query can reach. Comes before the next tokens, not after the last, so that those can still be taken back."""
        before = self.tokens - (0 if self.pending is None else self.pending[0].shape[2])
        if self.stream.until is not None and before > max(self.stream.began, self.stream.until - ROLLBACK):
            return  # a run of the pass under way, whose last tokens can be taken back
        if self.plan.window is not None:
            self.recent.keep_last(max(0, self.plan.window - 1))
        if self.store is not None:
            self.recent.keep_last(before - self.store.begin_pass(self, before))
        if self.plan.chunk is not None:  # as many again, so that some tokens can be taken back
            self.queries.keep_last(2 * self.plan.chunk)

    def settle(self) -> None:
        """Forget now what the next forward pass would forget before its first token; nothing can be taken back after that."""
        if self.store is not None:
            self.store.cut_at_end(self)
        self.forget()

    def turn_again(self) -> None:
        """Some kept keys were changed: what is made of the unrotated ones is made anew at the next forward pass."""
        self.placed, self.memos, self.mixed = {}, {}, True

    @property
    def oldest(self) -> int:
        """Slot of the first token in the window."""
        return self.tokens - len(self.recent)

    def write_sinks(self, new: dict[object, Tensor], before: int) -> None:
        """Take each row's first real tokens out of the new ones [B, K, T, D], the first of which has slot `before`."""
        count = next(iter(new.values())).shape[2]
        starts = torch.tensor(self.stream.start or [0], device=next(iter(new.values())).device)
        wanted = starts[:, None] + torch.arange(self.plan.num_sinks, device=starts.device)
        here = (wanted >= before) & (wanted < before + count)
        index = (wanted - before).clamp(0, count - 1)[:, None, :, None]
        for name, tensor in new.items():
            b, k, _, d = tensor.shape
            taken = tensor.gather(2, index.expand(b, k, -1, d))
            old = self.first.get(name)
            self.first[name] = torch.where(here[:, None, :, None], taken, torch.zeros_like(taken) if old is None else old)
        settled = all(self.stream.started) if self.stream.started else True
        self.first_filled = settled and max(self.stream.start or [0]) + self.plan.num_sinks <= self.tokens

    def held(self) -> Held:
        """What the layer holds now; channels and lists are the layer's own, which change with it.

        Raises: LongreachError for a layer that is half written.
        """
        if self.pending is not None:
            raise LongreachError(HALF_WRITTEN)
        summaries = self.summaries
        if summaries is not None and self.plan.chunk is not None:  # written in place, with room for more
            summaries = summaries[:, :, : max(0, self.tokens - min(self.stream.start)) // self.plan.chunk].clone()
        store = self.store
        return Held(
            tokens=self.tokens, batch=self.batch, recent=self.recent, first=self.first, first_filled=self.first_filled,
            epoch=self.epoch, queries=self.queries, summaries=summaries, rows={} if store is None else store.rows,
            scale=1.0 if store is None else float(store.scale),
            softcap=None if store is None or store.softcap is None else float(store.softcap),
            inserted=dict(self.inserted),
        )  # fmt: skip

    def hold(self, held: Held) -> None:
        """Hold this instead of what the layer holds; channels and lists are the layer's from now on."""
        self.is_initialized, self.pending, self.placed, self.memos, self.mixed = True, None, {}, {}, False
        self.tokens, self.batch, self.epoch = held.tokens, held.batch, held.epoch
        self.recent, self.queries = held.recent, held.queries
        self.first, self.first_filled = held.first, held.first_filled
        self.summaries = None if held.summaries is None else held.summaries.clone()
        self.inserted = dict(held.inserted)
        if self.store is not None:
            self.store.rows, self.store.scale, self.store.softcap = held.rows, held.scale, held.softcap

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Masks speak of true slots: all tokens seen, from slot 0."""
        return self.tokens + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen, forgotten ones included."""
        return self.tokens

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    def reset(self) -> None:
        """Empty the layer."""
        self.recent, self.first, self.first_filled, self.pending, self.tokens, self.epoch = Channels(), {}, False, None, 0, None
        self.queries, self.summaries, self.placed, self.memos, self.mixed = Channels(), None, {}, {}, False
        self.inserted = {}
        if self.store is not None:
            self.store.rows.clear()
        if self.leads:
            fresh = Stream(closed=self.stream.closed)
            self.stream.__dict__.update(fresh.__dict__)

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens: minus their number, as everywhere in transformers.

        Raises: LongreachError where what they pushed out of the window is gone, or a row begins among them; the tokens of the last forward
        pass can always go.
        """
        if tokens_to_remove > 0:
            raise LongreachError(f"crop({tokens_to_remove}): give minus the number of tokens to take back")
        count = min(-tokens_to_remove, self.tokens)
        rows = list(zip(self.stream.start, self.stream.started, strict=True))
        if any(begin > self.tokens - count for begin, started in rows if started):
            raise LongreachError(f"cannot take back {count} tokens, for a row of the batch begins among them; start with a new cache")
        self.check_crop(count)
        self.take_back(count)
        if self.leads:
            self.stream.step = None
            self.stream.prompt = self.stream.prompt if self.tokens else None
            for name in ("last", "embeds"):
                if (tensor := getattr(self.stream, name)) is not None:
                    setattr(self.stream, name, tensor[:, : tensor.shape[1] - count] if self.tokens else None)
            self.stream.start = [begin if started else min(begin, self.tokens) for begin, started in rows]
            for name in ("valid", "indices", "read"):
                if (tensor := getattr(self.stream, name)) is not None:
                    setattr(self.stream, name, tensor[:, : self.tokens])

    def check_crop(self, count: int) -> None:
        """Raise LongreachError where the last `count` tokens cannot be taken back."""
        needed = self.tokens - count if self.plan.window is None else min(self.tokens - count, max(0, self.plan.window - 1))
        if self.store is not None:
            self.store.crop(self, self.tokens - count)
        elif len(self.recent) - count < needed:
            raise LongreachError(f"a cache that forgets cannot take back {count} tokens, only those of the last forward pass")
        if self.plan.chunk is not None and len(self.queries) - count < min(self.tokens - count, self.plan.chunk - 1):
            raise LongreachError(f"a cache of chosen chunks cannot take back {count} tokens, only those of the last forward pass")

    def take_back(self, count: int) -> None:
        """Take back the last tokens of what the layer holds itself."""
        if self.plan.chunk is not None:
            self.queries.end -= count
        self.tokens -= count
        self.recent.end -= count
        self.placed, self.memos = {}, {}
        self.first_filled = self.first_filled and max(self.stream.start or [0]) + self.plan.num_sinks <= self.tokens

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows of the batch follow their beams."""
        self._change(Change(pick=beam_idx))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self._change(Change(pick=indices))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row of the batch."""
        self._change(Change(repeat=repeats))

    def _change(self, change: Change) -> None:
        if self.store is not None:
            self.store.change(self, change)
        self.batch = len(change(torch.arange(self.batch)))
        self.recent.apply(change)
        self.queries.apply(change)
        self.summaries = None if self.summaries is None else change(self.summaries)
        self.placed, self.memos = {}, {}
        self.first, self.inserted = ({name: change(each) for name, each in held.items()} for held in (self.first, self.inserted))
        if self.leads:
            self.stream.apply(change)
