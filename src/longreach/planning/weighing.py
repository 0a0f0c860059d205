"""Bytes of a cache at any length, under a stack of methods: measured on a small twin at short lengths, and drawn on in a line.

Lengths and settings of many tokens shrink together: a window of 8,000 in a text of 100,000 is measured as one of 160 in 2,000 and of 320
in 4,000. So what has stopped growing at the target has stopped in the short texts, too. Buffers have more room than is live; how much
is found by growing the engine's own ones, empty, to the target.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf, log
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, PreTrainedConfig, PreTrainedModel

from longreach.attention.base import AttentionPolicy
from longreach.cache.base import CachePolicy, with_wrappers
from longreach.core.bands import PROBE, LayerContext
from longreach.core.errors import UnsupportedError
from longreach.core.memory import Blocks, HeadGroup, Storage
from longreach.core.method import Method
from longreach.core.spec import unparse
from longreach.decoding.reading import CHUNK, new_cache, prefill
from longreach.engine._groups import GroupedLayer
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.contexts import StandIn
from longreach.engine.window import cannot_read, position_limit
from longreach.planning.growth import room_in_channels, room_in_pages
from longreach.planning.holdings import Holding, Holdings, holdings
from longreach.planning.shrinking import Lengths, lengths_for
from longreach.planning.twin import Measures, chosen_layers, twin

_DIM = 16  # of the heads of a twin
_WIDER = 3  # times as wide, and with two query heads for one: each part of a cache tells by its bytes what it goes with
_STEP = 2 * CHUNK  # tokens more, to tell how fast it grows under the same settings
_NEW = 8  # tokens read one by one behind the prompt
_FULL, _SLIDING = "full_attention", "sliding_attention"  # kinds of layers


@dataclass(frozen=True, kw_only=True)
class Line:
    """One part of a cache. Args: piece: as it is where the prompt ends, at the target. slope: of its count, with each token more of the
    prompt; climb: of what it then is after the answer. after: its count once `_NEW` tokens follow. rise: with each token more of those.
    """

    piece: Holding
    slope: float
    climb: float
    after: float
    rise: float

    def count(self, ahead: int, new: int) -> float:
        """How many, for a prompt `ahead` tokens longer than the target that `new` tokens follow."""
        if new == 0:
            return max(0.0, self.piece.count + self.slope * ahead)
        return max(0.0, self.after + self.rise * (new - _NEW) + self.climb * ahead)

    def kept(self, target: int, tokens: int, new: int) -> float:
        """Bytes of its storage, for a prompt of `tokens` that `new` tokens follow."""
        ahead, form = tokens - target, self.piece.form
        if form == "channels":
            held, then = (round(min(self.count(ahead, more), tokens + more)) for more in (0, new))
            return self.piece.unit * room_in_channels(held, tokens, CHUNK, then, new, grows=self.rise > 0)[new > 0]
        if form == "pages":
            at_end, filled = round(self.count(ahead, 0)), round(self.count(ahead, new))
            return self.piece.unit * room_in_pages(1 if at_end else filled, filled)  # one cut, where the prompt ends, takes all at once
        return self.piece.unit * self.count(ahead, new)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What the cache of one text takes.

    Args: target: tokens. parts: of each layer of the twin, and of what all layers share. times: for how many layers each stands. error: by
    what share the line misses what was measured between its ends; None: the target itself was measured. found: blocks that a query takes,
    where it chooses.
    """

    target: int
    parts: tuple[dict[str, Line], ...]
    times: tuple[int, ...]
    error: float | None
    found: int | None

    def kept(self, tokens: int, new: int = 0) -> dict[Storage, int]:
        """Bytes of all storages by place, for a prompt of `tokens` that `new` tokens follow."""
        sums: dict[Storage, float] = {"device": 0.0, "host": 0.0, "disk": 0.0}
        for lines, times in zip(self.parts, self.times, strict=True):
            for line in lines.values():
                sums[line.piece.place] += times * line.kept(self.target, tokens, new)
        return {place: round(size) for place, size in sums.items()}

    def largest(self, tokens: int) -> int:
        """Bytes on the device of the largest layer, which stands twice while it is copied to grow."""
        of_layers = (sum(x.kept(self.target, tokens, 0) for x in lines.values() if x.piece.place == "device") for lines in self.parts[:-1])
        return round(max(of_layers, default=0))

    def read(self, tokens: int, new: int = 0) -> int:
        """Bytes that the next token reads: all that is live, but of blocks only those that it takes."""
        total = 0.0
        for lines, times in zip(self.parts, self.times, strict=True):
            for name, line in lines.items():
                count = line.count(tokens - self.target, new)
                if self.found is not None and line.piece.form == "pages" and ".blocks" in name:
                    count = min(count, self.found)
                total += times * line.piece.unit * count
        return round(total)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a cache held: where the prompt ended, after `_NEW` tokens more, and after as many again."""

    ends: Holdings
    after: Holdings
    later: Holdings
    found: int | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The layers of a twin. Args: times: each -> for how many of the model it stands. stand_in: where its methods think that they are."""

    times: dict[int, int]
    stand_in: StandIn | None = None


class CacheScale:
    """Weighs the caches of a model. Args: dtype: of its cache. context: tokens of the prompt. short: tokens of the shorter text to read."""

    def __init__(self, config: PreTrainedConfig, dtype: torch.dtype, context: int, *, short: int | None = None) -> None:
        self.config, self.dtype, self.context, self.short = config, dtype, context, short
        self.measures = Measures.of(config)
        self._twins: dict[tuple[object, ...], PreTrainedModel] = {}
        self._weighed: dict[tuple[object, ...], Weight] = {}

    def weigh(self, stack: Sequence[Method]) -> Weight:
        """What the cache takes under these methods. Raises: UnsupportedError where the model does not take them."""
        layers = self._layers(stack)
        key = self._kind(stack, layers)
        if key not in self._weighed:
            self._weighed[key] = self._weigh(stack, layers)
        return self._weighed[key]

    def _weigh(self, stack: Sequence[Method], layers: Chosen) -> Weight:
        lengths = lengths_for(stack, self.context, self.measures.sliding, short=self.short)
        short, long = lengths.short, lengths.long

        heads = self._heads(stack)

        def sample(length: int, like: int | None = None, *, wider: bool = False) -> Sample:
            return self._sample(stack, layers, lengths, length, like or length, wider=wider)

        first = sample(short)
        last = sample(long) if long > short else first
        farther, wider = sample(short + _STEP, short), sample(short, wider=True)
        drawn = (self.context - short) / (long - short) if long > short else 0.0
        parts = []
        for index in range(len(first.ends.parts)):
            names = dict.fromkeys(chain(first.ends.parts[index], first.later.parts[index], last.ends.parts[index]))
            factors = {name: self._factor(name, index, index == len(layers.times), first, wider, heads) for name in names}
            parts.append({name: _line(name, index, factors[name], first, last, farther, drawn) for name in names})
        error = None
        if long > short:
            between = (short + long) // 2 // CHUNK * CHUNK + short % CHUNK
            middle = farther if lengths.over == inf and between == short + _STEP else sample(between)
            error = max(_miss(getattr(first, at), getattr(middle, at), getattr(last, at)) for at in ("ends", "later"))
        return Weight(target=self.context, parts=tuple(parts), times=(*layers.times.values(), 1), error=error, found=first.found)

    def _layers(self, stack: Sequence[Method]) -> Chosen:
        """The layers that a twin needs: the first ones in which methods do something else and one of each kind behind them, or where that
        goes by how many layers there are, one of each kind and of each thing that methods do.
        """
        kinds, heads = self.measures.layers, self._heads(stack)
        policies = [method for method in with_wrappers(stack) if isinstance(method, AttentionPolicy | CachePolicy)]
        attends = set(kinds) <= {_FULL, _SLIDING}
        full = tuple(index for index, kind in enumerate(kinds) if kind == _FULL) if attends else tuple(range(len(kinds)))
        seen = self._views(policies, len(kinds), full, heads)
        last = seen[full[-1]] if full else None
        leading = next((index for index in range(len(kinds)) if all(each in (None, last) for each in seen[index:])), 0)
        chosen = chosen_layers(kinds, leading)
        alone = tuple(place for place, index in enumerate(chosen) if index in full)
        fits = self._views(policies, len(chosen), alone, heads) == [seen[index] for index in chosen]
        if not attends:
            return Chosen(times=chosen if fits else dict.fromkeys(range(len(kinds)), 1))
        alike: dict[object, list[int]] = {}
        for index, views in enumerate(seen):
            alike.setdefault(views, []).append(index)
        if fits and len(chosen) <= len(alike):
            return Chosen(times=chosen)
        times = {indices[0]: len(indices) for indices in alike.values()}
        return Chosen(times=times, stand_in=StandIn(chosen=tuple(times), full_layers=full, num_layers=len(kinds)))

    def _heads(self, stack: Sequence[Method]) -> int:
        """How many key-value heads a twin needs: all, where they differ in what they keep."""
        policies = [method for method in with_wrappers(stack) if isinstance(method, AttentionPolicy | CachePolicy)]
        by_head = any(isinstance(view, HeadGroup) for method in policies for view in method.views(PROBE) or ())
        return self.measures.kv_heads if by_head else 1

    def _views(
        self, policies: Sequence[AttentionPolicy | CachePolicy], count: int, full: tuple[int, ...], kv_heads: int
    ) -> list[tuple[object, ...] | None]:
        """What queries of each of `count` layers see, but for which heads they are of; None of layers that methods do not act in."""
        m = self.measures
        layers = [
            LayerContext(
                layer_idx=index, num_layers=count, num_heads=m.group * kv_heads, num_kv_heads=kv_heads, head_dim=_DIM,
                hidden_size=2 * _DIM, trained_window=m.window or self.context, full_layers=full, first=index == full[0],
            )
            if index in full else None
            for index in range(count)
        ]  # fmt: skip
        return [None if layer is None else tuple(_alike(method.views(layer)) for method in policies) for layer in layers]

    @torch.no_grad()
    def _kind(self, stack: Sequence[Method], layers: Chosen) -> tuple[object, ...]:
        """What the cache is like: those of many methods are alike to the byte."""
        model = self._twin(layers, self._heads(stack), False, self.measures.window, self.measures.sliding)
        with apply(model, stack, warn=False):
            cache = new_cache(model)
            model(torch.zeros(1, 1, dtype=torch.long), **cache_argument(model, cache), use_cache=True)
        found = [_form(each) for each in cache.layers]
        following = any(getattr(getattr(each, "stream", None), "indices", None) is not None for each in cache.layers)
        return (*layers.times.items(), *found, following)

    def _factor(self, name: str, index: int, shared: bool, first: Sample, wider: Sample, kv_heads: int) -> float:
        """By how much a part is larger in the model than in a twin of so many key-value heads: for each of those, with its query heads or
        not, by a power of their width.
        """
        one, more = _live(first, index, name), _live(wider, index, name)
        if not one or not more:
            return 1.0
        m = self.measures
        if shared:  # states of the decoder, as wide as the model
            return m.hidden / (2 * _DIM) if more > one else 1.0
        heads, power = min(((h, p) for h in (1, 2) for p in (0, 1, 2)), key=lambda each: abs(log(more / one / each[0] / _WIDER ** each[1])))
        return more / one / heads * (m.group if heads == 2 else 1) * (m.head_dim / _DIM / _WIDER) ** power * m.kv_heads / kv_heads

    @torch.no_grad()
    def _sample(self, stack: Sequence[Method], layers: Chosen, lengths: Lengths, length: int, like: int, *, wider: bool) -> Sample:
        """Read `length` tokens with settings, and windows of the model, that are to `like` tokens what they are to the context."""
        m = self.measures
        model = self._twin(layers, self._heads(stack), wider, lengths.window(m.window, like), lengths.window(m.sliding, like))
        with apply(model, lengths.settings(stack, like), warn=False):
            limit = position_limit(model)
            if limit is not None and limit < length + 2 * _NEW:
                raise UnsupportedError(
                    unparse(stack) or "the model as it is", type(model).__name__, cannot_read(limit), "plan a shorter text"
                )
            cache = new_cache(model)
            ids = (torch.arange(length + 2 * _NEW)[None] * 7 + 3) % model.config.get_text_config().vocab_size
            prefill(model, ids[:, :length], cache=cache)
            held = [holdings(cache)]
            for begin in (length, length + _NEW):
                for at in range(begin, begin + _NEW):
                    model(ids[:, at : at + 1], **cache_argument(model, cache), use_cache=True)
                held.append(holdings(cache))
            return Sample(ends=held[0], after=held[1], later=held[2], found=_found(cache))

    def _twin(self, layers: Chosen, heads: int, wider: bool, window: int | None, sliding: int | None) -> PreTrainedModel:
        key = (*layers.times, layers.stand_in, heads, wider, window, sliding)
        if key not in self._twins:
            dim = _WIDER * _DIM if wider else _DIM
            self._twins[key] = twin(
                self.config, list(layers.times), group=1 + wider, kv_heads=heads, head_dim=dim, sliding=sliding, window=window,
                dtype=self.dtype, stand_in=layers.stand_in,
            )  # fmt: skip
        return self._twins[key]


def _alike(views: tuple[object, ...] | None) -> object:
    """The same for layers that differ only in which heads are in a group."""
    if views is None or not any(isinstance(view, HeadGroup) for view in views):
        return views
    return tuple((len(view.heads), view.bands) if isinstance(view, HeadGroup) else view for view in views)


def _form(layer: Any) -> tuple[object, ...]:
    """What a layer of a cache is like."""
    parts = zip(layer.heads, map(_form, layer.parts.values()), strict=True) if isinstance(layer, GroupedLayer) else ()
    found = type(layer), getattr(layer, "plan", None), getattr(getattr(layer, "store", None), "view", None)
    return (*found, *((tuple(heads), form) for heads, form in parts))


def _line(name: str, index: int, factor: float, first: Sample, last: Sample, farther: Sample, drawn: float) -> Line:
    def at_target(stage: str) -> float:
        short, long = (_count(getattr(sample, stage), index, name) for sample in (first, last))
        return short + (long - short) * drawn

    some = next(p for p in (_piece(s, index, name) for s in (last.ends, last.later, first.ends, first.later)) if p is not None)
    slope = (_count(farther.ends, index, name) - _count(first.ends, index, name)) / _STEP
    climb = (_count(farther.later, index, name) - _count(first.later, index, name)) / _STEP
    after, later = at_target("after"), at_target("later")
    rise = (_count(first.later, index, name) - _count(first.after, index, name)) / _NEW
    if some.form == "channels" and rise < 1:  # up and down, by a few tokens
        after, rise = max(after, later), 0.0
    elif some.form == "pages" or (some.form == "plain" and rise and climb > 0):  # in steps of more tokens than were read
        rise = climb
    piece = replace(some, count=at_target("ends"), unit=some.unit * factor)
    return Line(piece=piece, slope=slope, climb=climb, after=after, rise=rise)


def _piece(held: Holdings, index: int, name: str) -> Holding | None:
    return held.parts[index].get(name)


def _count(held: Holdings, index: int, name: str) -> float:
    piece = _piece(held, index, name)
    return 0.0 if piece is None else piece.count


def _live(sample: Sample, index: int, name: str) -> float:
    """Bytes at the first time that there are any."""
    found = (piece.live for held in (sample.ends, sample.later) if (piece := _piece(held, index, name)) is not None)
    return next((live for live in found if live), 0.0)


def _miss(first: Holdings, middle: Holdings, last: Holdings) -> float:
    return abs(middle.live - (first.live + last.live) / 2) / max(1.0, middle.live)


def _found(cache: Cache) -> int | None:
    """Blocks that a query takes of those that a cache has; None where there are none to choose from."""
    layers: list[Any] = list(cache.layers)
    for layer in layers:
        store = getattr(layer, "store", None)
        view: Any = getattr(store, "view", None)
        for row in store.rows.values() if store is not None and isinstance(view, Blocks) else ():
            finders: Tensor = row.state.finders["e"].permute(1, 2, 0, 3)
            chosen = view.chooser.select(finders.new_zeros(*finders.shape[:2], 1, layer.recent.view("v").shape[3]), finders)
            return int((chosen >= 0).sum(-1).max())
    return None
