"""Attention of one layer under the engine: writes the new tokens, and computes what they see, one run of queries after the other."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Cache

from longreach.cache.trained.base import Inserts
from longreach.core.bands import TRUE, Band, Computed, LayerContext, PositionMap, Selection
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.core.inserted import Inserted
from longreach.core.memory import Coded, HeadGroup, Store, View
from longreach.engine._accounts import ACCOUNTS
from longreach.engine._added import Added
from longreach.engine._among import band_pieces
from longreach.engine._angles import Angles, Epoch
from longreach.engine._attend import Options, sink_pieces
from longreach.engine._channels import Channels
from longreach.engine._choice import Summaries, chosen_pieces, extend_summaries
from longreach.engine._computed import computed_pieces
from longreach.engine._cuts import ENTROPY
from longreach.engine._fused import Merge
from longreach.engine._groups import GroupedLayer
from longreach.engine._inserted import InsertedAttention, text_pieces, write_inserted
from longreach.engine._own import OwnAttention, own_mask, rows_inside
from longreach.engine._seats import of_mask
from longreach.engine._states import StateAndBandLayer, has_state
from longreach.engine._store import AGES, HIDDEN, BandLayer, LayerPlan
from longreach.engine._stores import new_store
from longreach.engine._stream import MaskSpec, Step, Stream
from longreach.engine._turn import Turning
from longreach.engine.aside import ASIDE
from longreach.engine.cache_argument import cache_argument
from longreach.engine.rotation import Attention
from longreach.engine.setup import Setup
from longreach.engine.whole_length import read_as_long

Segment = tuple[int, int, Epoch, bool]  # queries [begin, end) of the step, their epoch, and whether the text is cut before them


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """What a model asks of an attention layer. Args: spec: its mask. scale, softcap: of logits. sinks: learned logits [H] that take weight
    and give nothing. own: the model's attention function, of rotated queries and keys, values and its mask. training: whether
    the model is in training.
    """

    spec: Any
    position_ids: Tensor | None
    scale: float
    softcap: float | None
    sinks: Tensor | None
    own: OwnAttention
    training: bool = False


class Host(Protocol):
    """What a layer needs of the engine."""

    setup: Setup
    rotaries: list[nn.Module]
    implementation: str
    cache: Cache | None
    base: nn.Module
    texts: int

    def step(self, stream: Stream, first: int, x: Tensor, spec: Any, position_ids: Tensor | None, *, cached: bool) -> Step:
        """The forward pass under way."""


def _of_all_heads(views: tuple[View, ...]) -> tuple[Band | Selection | Computed | Inserted | Store, ...]:
    return tuple(view for view in views if not isinstance(view, HeadGroup))


class LayerEngine:
    """Attention of one layer. Args: cache_index: of its layer in the cache."""

    def __init__(
        self, engine: Host, attention: Attention, context: LayerContext, cache_index: int, views: tuple[View, ...] | None = None
    ) -> None:
        self.engine, self.context, self.cache_index = engine, context, cache_index
        self.native_window, self.module, setup = attention.window, attention.module, engine.setup
        if views is None:  # a layer with a sliding window of its own never sees beyond it: there is nothing to extend
            views = setup.views(context) if self.native_window is None else (Band(hi=self.native_window - 1),)
        self.parts = {view.heads: self._of_heads(view, attention) for view in views if isinstance(view, HeadGroup)}
        self.views = _of_all_heads(views)
        self.summaries = Summaries.of(self.views)
        self.stored = next((view for view in self.views if isinstance(view, Store)), None)
        frequencies = setup.frequencies
        self.dynamic = frequencies is not None and attention.rotation is not None and self.native_window is None
        self.grows = self.dynamic and frequencies is not None and not frequencies.fixed  # its frequencies change with the length
        following = setup.following is not None and self.native_window is None
        # What is counted from the beginning of the text is not the same for rows that begin elsewhere.
        chunked = any(isinstance(view, Selection) or (isinstance(view, Band) and view.chunk > 1) for view in self.views)
        computed = any(isinstance(view, Computed | Inserted) for view in self.views)
        self.by_row = following or self.stored is not None or chunked or computed
        self.plan = LayerPlan.of(self.views, keep_all=setup.keep_all and self.native_window is None, raw=self.grows or following)
        self.added = Added.of(setup.attention if self.native_window is None else (), context)
        self.hidden: Tensor | None = None
        self.turning = self._turning(attention)
        self.beside = None if setup.inserting is None else self._beside(setup.inserting)
        self._check(following or chunked or computed or setup.text is not None, computed)

    def _check(self, places: bool, computed: bool) -> None:
        """Raise UnsupportedError for methods that cannot go together.

        Args: places: whether a method places tokens itself. computed: whether one computes attention itself.
        """
        setup = self.engine.setup
        if self.dynamic and places:
            what = "positions that depend on the length or the head"
            raise UnsupportedError(what, "a method that places tokens itself", "both would move them", "leave one of them out")
        if self.grows and (self.plan.num_sinks or self.plan.window is not None or self.stored is not None):
            raise UnsupportedError("length-dependent positions", "a method that forgets", "its window never grows", "leave one of them out")
        if self.stored is not None and (self.added.biased or self.added.decays):
            why = "what it keeps is no longer told by distance"
            raise UnsupportedError("a bias of logits", "a cache that is cut", why, "leave one of them out")
        if any(isinstance(view, Band) and view.top is not None for view in self.views) and (self.added.biased or self.added.decays):
            raise UnsupportedError("a bias of logits", "a method that chooses keys", "it knows of none", "leave one of them out")
        if any(isinstance(view, Computed) and view.normalised for view in self.views) and (setup.scaled or self.added.prefixes):
            other, why = ("a factor on logits", "it would be lost") if setup.scaled else ("a prefix", "queries as they are weigh it")
            raise UnsupportedError(other, "a method that normalises queries", why, "leave one of them out")
        if computed and (self.added.biased or self.added.decays):
            raise UnsupportedError(
                "a bias of logits", "a method that computes attention itself", "it knows of none", "leave one of them out"
            )

    def _of_heads(self, group: HeadGroup, attention: Attention) -> "LayerEngine":
        """The engine of a group of heads."""
        setup = self.engine.setup
        if setup.attention or setup.frequencies is not None:
            other = setup.attention[0].spec if setup.attention else "positions that depend on the length or the head"
            raise UnsupportedError(other, "a cache that differs by head", "it would have to be divided, too", "leave one of them out")
        count, each = len(group.heads), self.context.num_heads // self.context.num_kv_heads
        context = replace(self.context, num_heads=count * each, num_kv_heads=count)
        return LayerEngine(self.engine, attention, context, self.cache_index, group.bands)

    def _turning(self, attention: Attention) -> Turning:
        setup, rotation = self.engine.setup, attention.rotation
        angles = None
        if rotation is not None:
            rotary = self.engine.rotaries[rotation.rotary]
            pairs = getattr(rotary, f"{rotation.layer_type}_inv_freq" if rotation.layer_type else "inv_freq").shape[-1]
            decays = [policy.decay(pairs, self.context) for policy in self.added.decays]
            angles = Angles(
                rotation=rotation, rotary=rotary, frequencies=setup.frequencies if self.dynamic else None,
                decay=torch.stack(decays).prod(0) if decays else None,
                endless=self.plan.window is not None or self.stored is not None or self.plan.inserts,
            )  # fmt: skip
        return Turning(
            rotation=rotation,
            angles=angles,
            by_row=self.by_row and self.stored is None,
            dynamic=self.dynamic,
            from_offset=setup.plain_inside is not None,
        )

    def _beside(self, policy: Inserts) -> InsertedAttention:
        """Attention of the tokens that a policy inserts."""
        acts = policy if self.native_window is None else None
        return InsertedAttention(policy.inserted(self.context), acts, self.context, self.native_window, self.turning)

    def new_cache_layer(self, stream: Stream, leads: bool, given: Any = None) -> BandLayer:
        """An empty layer of a cache. Args: given: the layer in whose place it comes."""
        if self.parts:
            if has_state(given):
                raise UnsupportedError(
                    "a cache that differs by head", "a layer with a state", "both divide it", "choose another cache method"
                )
            return GroupedLayer(stream, leads, {heads: part.new_cache_layer(stream, leads=False) for heads, part in self.parts.items()})
        if has_state(given):
            return StateAndBandLayer(given, self.plan, stream, leads, new_store(self.stored, self.context, self.turning.place))
        return BandLayer(self.plan, stream, leads, new_store(self.stored, self.context, self.turning.place))

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the layer's input, [B, T, hidden_size] (a hook before its forward pass)."""
        self.hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        """Attention output [B, T, H, D] of unrotated q [B, H, T, D] and k, v [B, K, T, D]; what came before is in the cache."""
        if ASIDE.get():
            return self._aside(q, k, v, call)
        layer, cached = self._layer(q, k, call.spec)
        new = of_mask(call.spec)
        if new is None or self.beside is None:
            return self._attend(layer, cached, q, k, v, call)
        count = q.shape[2] - new.width
        hidden, self.hidden = self.hidden, None
        own = self.beside.projected(hidden, *(x[:, :, count:] for x in (q, k, v)))
        if self.plan.inserts:
            write_inserted(layer, new, *own[1:])
        given = call if call.position_ids is None else replace(call, position_ids=call.position_ids[..., :count])
        out = self._attend(layer, cached, q[:, :, :count], k[:, :, :count], v[:, :, :count], given)
        step, options = layer.stream.step, Options(call.scale, call.softcap, call.sinks, None)
        assert isinstance(step, Step)  # noqa: S101 - made for the text
        return torch.cat([out, self.beside.output(layer, step, own[0], new, options)], 1)

    def _aside(self, q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        """As the model attends itself, to a text that stands alone."""
        self.hidden = None
        count = q.shape[2]
        place = torch.arange(count, device=q.device)
        q, k = (self.turning.turn_to(x, place, count).to(v.dtype) for x in (q, k))
        mask = call.spec.own_mask(self.engine.implementation) if isinstance(call.spec, MaskSpec) else call.spec
        return call.own(q, k, v, mask)

    def _attend(self, layer: BandLayer, cached: bool, q: Tensor, k: Tensor, v: Tensor, call: AttentionCall) -> Tensor:
        if isinstance(layer, GroupedLayer):
            layer.pending = None
            each, outs, order = self.context.num_heads // self.context.num_kv_heads, [], []
            for heads, part, mine in zip(layer.heads, self.parts.values(), layer.parts.values(), strict=True):
                rows = [head * each + query for head in heads for query in range(each)]
                given = replace(call, sinks=None if call.sinks is None else call.sinks[rows])
                outs.append(part._attend(mine, cached, q[:, rows], k[:, heads], v[:, heads], given))
                order += rows
            return torch.cat(outs, 2)[:, :, torch.tensor(order, device=q.device).argsort()]
        step = self.engine.step(layer.stream, layer.tokens - q.shape[2], q, call.spec, call.position_ids, cached=cached)
        if layer.store is not None:
            layer.store.scale, layer.store.softcap = call.scale, call.softcap
            if isinstance(self.stored, Coded) and torch.is_grad_enabled() and q.requires_grad:
                raise LongreachError("nothing can be trained under a cache that rounds, for rounding has no gradient; choose another")
            if step.valid is not None:
                raise LongreachError("padding inside a text cannot go with this cache; pad on the left, or pass texts one by one")
        self._write(layer, step, q, k, v, cached)
        inside, plain = rows_inside(step, call.spec, self.engine.setup.plain_inside), None
        if inside is not False:  # rows inside the window stay under the frequencies of the first segment
            epoch = self._segments(step)[0][2]
            if self.grows and (layer.mixed or layer.epoch != epoch):
                self.turning.rerotate(layer, step, epoch, like=q)
            mask = own_mask(call.spec, self.engine.implementation, layer)
            turned = self.turning.rotate(q, step, TRUE, epoch, "queries")
            plain = call.own(turned, layer.recent.view(TRUE), layer.recent.view("v"), mask)
            if inside is True:
                return plain
        options = Options(call.scale, call.softcap, call.sinks, self.added if self.added.biased else None, call.training)
        if self.summaries is not None:
            extend_summaries(layer, step, self.summaries, self.turning.turn, call.scale)
        apart = layer.store is not None and layer.store.apart
        if not self.by_row or (step.start_min == step.start_max and not apart):
            out = self._run(layer, step, q, options)
        else:
            out = torch.cat([self._run(layer.row(row), step.row(row), q[row : row + 1], options) for row in range(q.shape[0])])
        out = out.transpose(1, 2)
        return out if plain is None or isinstance(inside, bool) else torch.where(inside[:, None, None, None], plain, out)

    def _layer(self, q: Tensor, k: Tensor, spec: Any) -> tuple[BandLayer, bool]:
        """The layer of the cache, or one for this pass alone; and which of the two."""
        kept = self.engine.cache.layers[self.cache_index] if self.engine.cache is not None else None
        if isinstance(kept, BandLayer) and kept.pending is not None:
            return kept, True
        if k.shape[2] != q.shape[2]:
            name = next(iter(cache_argument(self.engine.base, None)))
            raise LongreachError(f"the cache of this forward pass did not reach the engine; pass it to the model by name ({name}=)")
        # What the layers of a pass share hangs on its mask: a layer that is computed again for its gradients finds its own there.
        layer = self.new_cache_layer(spec.stream if isinstance(spec, MaskSpec) else Stream(), leads=False)
        new = of_mask(spec)
        for each in (layer, *(layer.parts.values() if isinstance(layer, GroupedLayer) else ())):
            each.tokens, each.batch = q.shape[2] - (0 if new is None else new.width), q.shape[0]
        return layer, False

    def _write(self, layer: BandLayer, step: Step, q: Tensor, k: Tensor, v: Tensor, cached: bool) -> None:
        channels: dict[object, Tensor] = {"v": v}
        epoch = None
        if self.added.agings:
            channels[AGES] = self._ages(layer, step)
        if self.plan.raw:
            channels["raw"] = k
        if self.plan.entropy:  # written when it is known
            channels[ENTROPY] = k.new_zeros(*k.shape[:3], 1, dtype=torch.float32)
        if self.plan.hidden:  # written when they are known
            channels[HIDDEN] = k.new_zeros(k.shape[0], 1, k.shape[2], self.context.hidden_size)
        for name in self.plan.accounts:
            channels[name] = k.new_zeros(*k.shape[:3], ACCOUNTS[name], dtype=torch.float32)
        if self.dynamic:
            epoch = layer.epoch = self._segments(step)[0][2] if layer.epoch is None else layer.epoch
        sinks: dict[object, Tensor] = {name: channels[name] for name in ("v", AGES) if name in channels}
        for maps, into in ((self.plan.maps, channels), (self.plan.sink_maps, sinks)):
            for position in maps:
                # Under autocast rotation is in float32 and attention is not.
                into[position] = self.turning.rotate(k, step, position, epoch, "keys").to(v.dtype)
        if cached:
            layer.forget()
            layer.write(channels, sinks)
        else:
            layer.recent = Channels.holding(channels)
            if self.plan.num_sinks:
                layer.write_sinks(sinks, 0)
        if self.plan.chunk is not None:
            layer.queries.append({"q": q})

    def _ages(self, layer: BandLayer, step: Step) -> Tensor:
        """[B, H, T, 1]: how much all that was read so far has aged what came before, as each new token finds it."""
        assert self.hidden is not None  # noqa: S101 - the hook sets it
        hidden, self.hidden = self.hidden, None
        ages = self.added.ages(hidden)
        return ages if len(layer.recent) == 0 else ages + layer.recent.view(AGES)[:, :, -1:]

    def _run(self, layer: BandLayer, step: Step, q: Tensor, options: Options) -> Tensor:
        """Attention output [B, H, T, D] of the new tokens, of rows that are laid out alike."""
        outs = []
        for begin, end, epoch, cut in self._segments(step):
            if self.grows and (layer.mixed or layer.epoch != epoch):
                self.turning.rerotate(layer, step, epoch, like=q)
            if cut and layer.store is not None:
                layer.store.cut(layer, step, step.first + begin)
            outs.append(self._segment(layer, step, q[:, :, begin:end], begin, end, epoch, options))
        return outs[0] if len(outs) == 1 else torch.cat(outs, 2)

    def _segments(self, step: Step) -> list[Segment]:
        """Runs of queries between cuts of the text, or for one length of it."""
        setup = self.engine.setup
        if self.stored is not None:
            key = ("cuts", self.stored.cut, step.start_min)
            if key not in step.memo:
                first = step.first - step.start_min  # the index of the first new token
                cuts = [index - first for index in self.stored.cut.before(max(0, first), first + step.count, step.prompt - step.start_min)]
                ends = sorted({0, *cuts, step.count})
                step.memo[key] = [(a, b, None, a in cuts) for a, b in pairwise(ends)]
            found: list[Segment] = step.memo[key]
            return found
        if self.native_window is not None or (setup.following is None and not self.dynamic):
            return [(0, step.count, None, False)]
        if "segments" not in step.memo:
            if setup.following is not None:
                length = setup.following.text_length(step.places, self.context)
            else:
                assert setup.frequencies is not None  # noqa: S101 - dynamic layers have it
                length = setup.frequencies.lengths(step.t, read_as_long(self.engine.rotaries))
            ends = [0, *((length.diff() != 0).any(0).nonzero()[:, 0] + 1).tolist(), step.count]
            step.memo["segments"] = [(a, b, tuple(length[:, a].tolist()), False) for a, b in pairwise(ends)]
        segments: list[Segment] = step.memo["segments"]
        return segments

    def _segment(self, layer: BandLayer, step: Step, q: Tensor, begin: int, end: int, epoch: Epoch, options: Options) -> Tensor:
        """Attention output [B, H, end - begin, D] of the queries [begin, end) of the step."""
        factor = self._temperature(step, begin, end)
        rotated: dict[PositionMap, Tensor] = {}

        def turned(position: PositionMap, rows: slice) -> Tensor:
            found = self.turning.rotate(q[:, :, rows], step, position, epoch, "queries", begin + rows.start)
            return found if factor is None else found * factor[:, :, rows].to(q.dtype)

        def whole(position: PositionMap) -> Tensor:
            if position not in rotated:
                rotated[position] = turned(position, slice(0, end - begin))
            return rotated[position]

        merge, slot, views = Merge(), step.first + begin, self.views
        if self.added.prefixes:
            for out, lse in self.added.prefix(self.turning.rotate(q, step, TRUE, epoch, "queries", begin)):
                merge.add(out, lse, slice(0, end - begin), end - begin)
        if epoch is not None and self.engine.setup.following is not None:
            views = _of_all_heads(self.engine.setup.following.bands_at(self.context, epoch[0]))
        state = None if layer.store is None else layer.store.row(layer, step).state
        for view in views:
            if isinstance(view, Selection):
                pieces = chosen_pieces(layer, step, view, q, turned, slot, options.scale, options.softcap)
            elif isinstance(view, Computed):
                pieces = computed_pieces(layer, step, view, whole(view.positions), self.turning.turn, slot, options)
            elif isinstance(view, Inserted):
                pieces = text_pieces(layer, step, view, self.turning, q, slot, options)
            elif isinstance(view, Store):
                assert layer.store is not None and state is not None  # noqa: S101 - it was made with the layer
                pieces = layer.store.pieces(state, whole(TRUE), turned)
            elif view.sinks is not None:
                pieces = sink_pieces(layer, step, view, whole(view.queries), slot, options)
            else:
                keys, upto = self.turning.keys(layer, step, view.keys, view.before), 0 if state is None else state.upto
                pieces = band_pieces(self.engine.texts, layer, step, view, whole(view.queries), keys, slot, options, upto)
            for rows, out, lse in pieces:
                merge.add(out, lse, rows, end - begin)
        if layer.store is not None and step.start_min < step.first + end:  # not where there is nothing but padding
            layer.store.observe(layer, step, whole(TRUE), q, merge.lse(options.sinks), slot)
        return merge.result(options.sinks, q)

    def _temperature(self, step: Step, begin: int, end: int) -> Tensor | None:
        if self.native_window is not None:
            return None
        key = ("temperature", self.context.layer_idx)
        if key not in step.memo:
            step.memo[key] = self.engine.setup.temperature(step.before, self.context)
        factor: Tensor | None = step.memo[key]
        if factor is None:
            return None
        return (factor if factor.ndim == 3 else factor[:, None])[:, :, begin:end, None]
