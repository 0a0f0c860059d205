"""What the engine keeps of the past: a transformers cache layer with growing buffers and keys rotated once, when written."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from longreach.core.bands import Band, PositionMap, Selection, View
from longreach.core.errors import LongreachError

AGES = "ages"  # the channel of what tokens age each other by, [B, H, n, 1]
_FIRST_CAPACITY = 64
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What a layer keeps, derived from its bands.

    num_sinks: first tokens of every row. window: last tokens (None: all). maps, sink_maps: position maps with a rotated copy each.
    raw: also the unrotated keys (the frequencies, or where keys are placed, will change). chunk: tokens of the chunks that queries
    choose from, whose queries are kept until the chunk is full.
    """

    num_sinks: int
    window: int | None
    maps: tuple[PositionMap, ...]
    sink_maps: tuple[PositionMap, ...]
    raw: bool = False
    chunk: int | None = None

    @classmethod
    def of(cls, views: Iterable[View], *, keep_all: bool = False, raw: bool = False) -> "Plan":
        """The least that these bands and selections need."""
        bands = [view for view in views if isinstance(view, Band)]
        chosen = [view for view in views if isinstance(view, Selection)]
        recent = [band for band in bands if band.sinks is None]
        first = [band for band in bands if band.sinks is not None]
        reach = [band.reach for band in recent]
        bounded = not keep_all and None not in reach and not chosen
        return cls(
            num_sinks=max((band.sinks or 0 for band in first), default=0),
            window=max((hi + 1 for hi in reach if hi is not None), default=0) if bounded else None,
            maps=tuple(dict.fromkeys([*(band.keys for band in recent), *(each.keys for each in chosen)])),
            sink_maps=tuple(dict.fromkeys(band.keys for band in first)),
            raw=raw,
            chunk=chosen[0].chunk if chosen else None,
        )


class Channels:
    """Tensors [B, K, n, D] that grow at the end and shrink at the front together; views of them stay contiguous along D.

    K and D may differ from channel to channel.
    """

    def __init__(self) -> None:
        self.data: dict[object, Tensor] = {}
        self.begin = self.end = 0

    def __len__(self) -> int:
        return self.end - self.begin

    def reserve(self, like: dict[object, Tensor], tokens: int) -> None:
        """Make room for `tokens` more, moving what is live to the front or to a larger buffer."""
        if self.data and self.end + tokens <= next(iter(self.data.values())).shape[2]:
            return
        live = len(self)
        for name, new in like.items():
            old = self.data.get(name)
            # A bounded store needs room for its live part twice: then moving it is paid for by as many appended tokens.
            if old is not None and 2 * live + tokens <= old.shape[2]:
                old[:, :, :live] = old[:, :, self.begin : self.end].clone() if self.begin < live else old[:, :, self.begin : self.end]
                continue
            capacity = max(_FIRST_CAPACITY, int((live + tokens) * _GROWTH), 2 * live + tokens if self.begin else 0)
            b, k, _, d = new.shape
            grown = new.new_empty(b, k, capacity, d)
            if old is not None:
                grown[:, :, :live] = old[:, :, self.begin : self.end]
            self.data[name] = grown
        self.begin, self.end = 0, live

    def append(self, new: dict[object, Tensor]) -> None:
        """Add `new` [B, K, T, D] of every channel."""
        tokens = next(iter(new.values())).shape[2]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in new.values()):  # writing in place would break gradients
            joined = {name: torch.cat([self.view(name), tensor], 2) if self.data else tensor for name, tensor in new.items()}
            self.data, self.begin, self.end = joined, 0, len(self) + tokens
            return
        self.reserve(new, tokens)
        for name, tensor in new.items():
            self.data[name][:, :, self.end : self.end + tokens] = tensor
        self.end += tokens

    @classmethod
    def holding(cls, tensors: dict[object, Tensor]) -> "Channels":
        """Channels that are these tensors, without a copy."""
        channels = cls()
        channels.data, channels.end = tensors, next(iter(tensors.values())).shape[2]
        return channels

    def replace(self, name: object, tensor: Tensor) -> None:
        """Put `tensor` in place of the live part of a channel."""
        old = self.data[name]
        if torch.is_grad_enabled() and (tensor.requires_grad or old.requires_grad):  # writing in place would break gradients
            self.data[name] = torch.cat([old[:, :, : self.begin], tensor.to(old.dtype), old[:, :, self.end :]], 2)
        else:
            old[:, :, self.begin : self.end] = tensor

    def view(self, name: object) -> Tensor:
        """The live part of a channel."""
        return self.data[name][:, :, self.begin : self.end]

    def row(self, index: int) -> "Channels":
        """These channels of one row of the batch, without a copy."""
        channels = Channels()
        channels.data = {name: tensor[index : index + 1] for name, tensor in self.data.items()}
        channels.begin, channels.end = self.begin, self.end
        return channels

    def keep_last(self, count: int) -> None:
        """Forget all but the last `count` tokens."""
        self.begin = max(self.begin, self.end - count)

    def apply(self, change: "Change") -> None:
        """Replace every buffer (batch rows picked, repeated, ...)."""
        self.data = {name: change(tensor) for name, tensor in self.data.items()}


class Change:
    """Rows of the batch: pick by index, or repeat each."""

    def __init__(self, *, pick: Tensor | None = None, repeat: int | None = None) -> None:
        self.pick, self.repeat = pick, repeat

    def __call__(self, tensor: Tensor) -> Tensor:
        """The changed tensor."""
        if self.repeat is not None:
            return tensor.repeat_interleave(self.repeat, 0)
        return tensor.index_select(0, self.pick.to(tensor.device)) if self.pick is not None else tensor


@dataclass(eq=False)
class Stream:
    """What all layers of one cache share: where rows begin, which tokens are real, and the index of each token.

    start: left padding of each row. offset: position id of each row's first real token [B, 1]. valid: [B, n], only where there
    is padding elsewhere than on the left. indices: [B | 1, n], kept only for frequencies that change. read: [B, n, state], what a method
    that reads the text made of it after each token.
    """

    start: list[int] = field(default_factory=list)
    started: list[bool] = field(default_factory=list)
    offset: Tensor | None = None
    valid: Tensor | None = None
    indices: Tensor | None = None
    read: Tensor | None = None
    step: object = None
    closed: bool = False

    def apply(self, change: Change) -> None:
        """Follow a change of the batch's rows."""
        rows = change(torch.tensor(self.start)).tolist() if self.start else []
        flags = change(torch.tensor(self.started)).tolist() if self.started else []
        self.start, self.started, self.step = rows, flags, None
        for name in ("offset", "valid", "indices", "read"):
            tensor = getattr(self, name)
            if tensor is not None and tensor.shape[0] > 1:  # a single row stands for all of them
                setattr(self, name, change(tensor))


class BandLayer(CacheLayerMixin):
    """A transformers cache layer. `update` only hands over the new keys; the engine rotates and writes them."""

    is_sliding = False
    is_croppable = True  # the tokens of the last forward pass, which is what assisted decoding asks; further, `crop` refuses

    def __init__(self, plan: Plan, stream: Stream, leads: bool) -> None:
        super().__init__()
        self.plan, self.stream, self.leads = plan, stream, leads
        self.recent = Channels()
        self.first: dict[object, Tensor] = {}
        self.first_filled = False
        self.pending: tuple[Tensor, Tensor] | None = None
        self.tokens = 0
        self.epoch: tuple[int, ...] | None = None
        # Of chunks that queries choose from: the unrotated queries of the last tokens, and the summaries [B, H, n, E] of full chunks.
        self.queries = Channels()
        self.summaries: Tensor | None = None
        # Copies of the keys made when they are needed: of a row (-1: of all rows), under which map, how many tokens, [B, K, n, D].
        self.placed: dict[int, tuple[PositionMap, int, Tensor]] = {}
        self.index = -1

    def row(self, index: int) -> "BandLayer":
        """The layer of one row of the batch: views of its tensors, and what is made of them."""
        row = copy.copy(self)
        row.index, row.recent, row.queries = index, self.recent.row(index), self.queries.row(index)
        row.first = {name: tensor[index : index + 1] for name, tensor in self.first.items()}
        row.summaries = None if self.summaries is None else self.summaries[index : index + 1]
        return row

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare: buffers are made at the first write."""
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Take the new, unrotated keys and values [B, K, T, D]."""
        if self.stream.closed:
            raise LongreachError("this cache was filled under a longreach method that is no longer applied; start with a new cache")
        if self.pending is not None:
            raise LongreachError("this cache was left half written by an interrupted forward pass; start with a new cache")
        self.is_initialized = True
        self.pending = (key_states, value_states)
        self.tokens += key_states.shape[2]
        return key_states, value_states

    def write(self, channels: dict[object, Tensor], sinks: dict[object, Tensor]) -> None:
        """Store the pending tokens: `channels` for the window, `sinks` as the first tokens of each row."""
        self.pending = None
        before = self.tokens - next(iter(channels.values())).shape[2]
        if self.plan.num_sinks and not self.first_filled:
            self.write_sinks(sinks, before)
        self.recent.append(channels)

    def forget(self) -> None:
        """Drop what no later query can reach. Comes before the next tokens, not after the last, so that those can still be taken back."""
        if self.plan.window is not None:
            self.recent.keep_last(max(0, self.plan.window - 1))
        if self.plan.chunk is not None:  # as many again, so that some tokens can be taken back
            self.queries.keep_last(2 * self.plan.chunk)

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
        self.queries, self.summaries, self.placed = Channels(), None, {}
        if self.leads:
            fresh = Stream(closed=self.stream.closed)
            self.stream.__dict__.update(fresh.__dict__)

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens: minus their number, as everywhere in transformers.

        Raises: LongreachError where what they pushed out of the window is gone; the tokens of the last forward pass can always go.
        """
        if tokens_to_remove > 0:
            raise LongreachError(f"crop({tokens_to_remove}): give minus the number of tokens to take back")
        count = min(-tokens_to_remove, self.tokens)
        needed = self.tokens - count if self.plan.window is None else min(self.tokens - count, max(0, self.plan.window - 1))
        if len(self.recent) - count < needed:
            raise LongreachError(f"a cache that forgets cannot take back {count} tokens, only those of the last forward pass")
        if self.plan.chunk is not None:
            if len(self.queries) - count < min(self.tokens - count, self.plan.chunk - 1):
                raise LongreachError(f"a cache of chosen chunks cannot take back {count} tokens, only those of the last forward pass")
            self.queries.end -= count
        self.tokens -= count
        self.recent.end -= count
        self.placed = {}
        self.first_filled = self.first_filled and max(self.stream.start or [0]) + self.plan.num_sinks <= self.tokens
        if self.leads:
            self.stream.step = None
            for name in ("valid", "indices", "read"):
                if (tensor := getattr(self.stream, name)) is not None:
                    setattr(self.stream, name, tensor[:, : self.tokens])

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
        self.recent.apply(change)
        self.queries.apply(change)
        self.summaries = None if self.summaries is None else change(self.summaries)
        self.placed = {}
        self.first = {name: change(tensor) for name, tensor in self.first.items()}
        if self.leads:
            self.stream.apply(change)
