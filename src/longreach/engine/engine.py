"""Deferred rotation: runs bands on unmodified transformers models.

The model's rotary modules return cos = 1 and sin = 0, so that queries and keys arrive unrotated at an attention function registered
with transformers. It rotates keys once, when they are written to the cache, into one copy for each position map in use, rotates
queries as each band wants them, computes the bands piece by piece with fused attention and merges the pieces by log-sum-exp.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from longreach.attention.base import goes_by_text
from longreach.core.bands import TRUE, Band, ByBlocks, LayerContext, PositionMap, Selection, View
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine import rotation
from longreach.engine._added import Added
from longreach.engine._angles import Angles, Epoch, Side
from longreach.engine._attend import Options, recent_pieces, sink_pieces
from longreach.engine._choice import chosen_pieces, extend_summaries
from longreach.engine._fused import Merge
from longreach.engine._own import OwnAttention, own_attention, own_mask, rows_inside
from longreach.engine._store import AGES, BandLayer, Channels, Plan, Stream
from longreach.engine._stream import MaskSpec, Step, make_step
from longreach.engine._text import given_ids
from longreach.engine.cache_argument import cache_argument, take_cache
from longreach.engine.contexts import contexts
from longreach.engine.interface import interface
from longreach.engine.rotation import Attention, Rotation
from longreach.engine.setup import Setup

NAME = "longreach"


class Engine:
    """The state of one applied setup: what it learned of the model, and the cache of the forward pass under way."""

    def __init__(self, model: PreTrainedModel, attentions: list[Attention], setup: Setup, trained_window: int) -> None:
        self.setup = setup
        self.base, self.config = model.base_model, model.config.get_text_config()
        self.implementation = self.config._attn_implementation
        self.rotaries = [module for _, _, module in rotation.rotary_modules(model)]
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self.cache: Cache | None = None
        self.ids: Tensor | None = None
        self.layers: dict[int, LayerEngine] = {}
        for index, (attention, context) in enumerate(zip(attentions, contexts(model, attentions), strict=True)):
            context = replace(context, trained_window=trained_window)
            slot = getattr(attention.module, "layer_idx", index)
            self.layers[slot] = LayerEngine(self, attention, context, slot)

    def before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the model a cache made of the engine's layers (a hook before each forward pass)."""
        cache = take_cache(kwargs)
        use_cache = kwargs.get("use_cache")
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            checkpointing = module.training and getattr(module, "gradient_checkpointing", False)
            cache = None if checkpointing else DynamicCache(config=self.config)
        if cache is not None:
            self._adopt(cache)
            kwargs.update(cache_argument(module, cache))
        self.cache, self.ids = cache, given_ids(args, kwargs)
        return args, kwargs

    def _adopt(self, cache: Cache) -> None:
        ours = [layer for layer in cache.layers if isinstance(layer, BandLayer)]
        if ours and all(layer.stream in self.streams for layer in ours):
            if len({layer.tokens for layer in ours}) > 1:
                raise LongreachError("this cache was left half written by an interrupted forward pass; start with a new cache")
            return
        if ours or cache.get_seq_length() > 0:
            raise LongreachError("this cache was filled outside the applied longreach method; start with a new cache")
        if type(cache) not in (Cache, DynamicCache, StaticCache):
            raise LongreachError(f"a {type(cache).__name__} cannot be used under a longreach method; pass a DynamicCache or none")
        stream = Stream()
        self.streams.add(stream)
        lead = min(self.layers)
        given: list[Any] = list(cache.layers) + [None] * (max(self.layers) + 1 - len(cache.layers))
        cache.layers[:] = [
            BandLayer(self.layers[index].plan, stream, leads=index == lead) if index in self.layers else layer
            for index, layer in enumerate(given)
        ]
        cache.layer_class_to_replicate = None

    def step(self, stream: Stream, first: int, x: Tensor, spec: Any, position_ids: Tensor | None, *, cached: bool) -> Step:
        """The forward pass under way; made by its first layer."""
        if not (isinstance(stream.step, Step) and stream.step.first == first and stream.step.count == x.shape[2]):
            keep = self.setup.frequencies is not None and not self.setup.frequencies.fixed
            stream.step = make_step(stream, first, x, spec, position_ids, cached=cached, keep_indices=keep)
            if stream.step.skips and any(goes_by_text(policy) for policy in self.setup.seeing):
                raise LongreachError("positions that skip cannot go with a method that goes by the text; give positions that follow on")
            if self.setup.text is not None:
                stream.step.memo["blocks"] = self.setup.text.blocks(stream, first, self.ids)
        return stream.step

    def close(self) -> None:
        """Caches filled so far can no longer be used."""
        for stream in self.streams:
            stream.closed = True


class LayerEngine:
    """Attention of one layer under the engine."""

    def __init__(self, engine: Engine, attention: Attention, context: LayerContext, cache_index: int) -> None:
        self.engine, self.context, self.cache_index = engine, context, cache_index
        self.rotation, self.native_window = attention.rotation, attention.window
        setup = engine.setup
        # A layer with a sliding window of its own never sees beyond it: there is nothing to extend.
        self.views: tuple[View, ...] = setup.views(context) if self.native_window is None else (Band(hi=self.native_window - 1),)
        self.chooser = next((view for view in self.views if isinstance(view, Selection)), None)
        frequencies = setup.frequencies
        self.dynamic = frequencies is not None and self.rotation is not None and self.native_window is None
        self.grows = self.dynamic and frequencies is not None and not frequencies.fixed  # its frequencies change with the length
        placed = setup.following is not None and self.native_window is None
        # What is counted from the beginning of the text is not the same for rows that begin elsewhere.
        self.by_row = placed or any(view.chunk > 1 for view in self.views)
        if self.dynamic and (self.by_row or setup.text is not None):
            what = "positions that depend on the length or the head"
            raise UnsupportedError(what, "a method that places tokens itself", "both would move them", "leave one of them out")
        self.plan = Plan.of(self.views, keep_all=setup.keep_all and self.native_window is None, raw=self.grows or placed)
        self.added = Added.of(setup.attention if self.native_window is None else (), context)
        self.hidden: Tensor | None = None
        self.angles = None if self.rotation is None else self._angles(self.rotation)
        self.decays = self.angles is not None and self.angles.decay is not None
        if self.grows and (self.plan.num_sinks or self.plan.window is not None):
            raise UnsupportedError("length-dependent positions", "a method that forgets", "its window never grows", "leave one of them out")

    def _angles(self, rotation: Rotation) -> Angles:
        setup, rotary = self.engine.setup, self.engine.rotaries[rotation.rotary]
        pairs = getattr(rotary, f"{rotation.layer_type}_inv_freq" if rotation.layer_type else "inv_freq").shape[-1]
        decays = [policy.decay(pairs, self.context) for policy in self.added.decays]
        return Angles(
            rotation=rotation, rotary=rotary, frequencies=setup.frequencies if self.dynamic else None,
            decay=torch.stack(decays).prod(0) if decays else None,
            endless=self.plan.window is not None,
        )  # fmt: skip

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note the layer's input, [B, T, hidden_size] (a hook before its forward pass)."""
        self.hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        spec: Any,
        position_ids: Tensor | None,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
        own: OwnAttention,
    ) -> Tensor:
        """Attention output [B, T, H, D] of unrotated q [B, H, T, D] and k, v [B, K, T, D]; what came before is in the cache.

        own: the model's attention function, of rotated queries and keys, values and its mask.
        """
        kept = self.engine.cache.layers[self.cache_index] if self.engine.cache is not None else None
        if cached := isinstance(kept, BandLayer) and kept.pending is not None:
            layer: BandLayer = kept
        else:
            if k.shape[2] != q.shape[2]:
                name = next(iter(cache_argument(self.engine.base, None)))
                raise LongreachError(f"the cache of this forward pass did not reach the engine; pass it to the model by name ({name}=)")
            # What the layers of a pass share hangs on its mask: a layer that is computed again for its gradients finds its own there.
            layer = BandLayer(self.plan, spec.stream if isinstance(spec, MaskSpec) else Stream(), leads=False)
            layer.tokens = q.shape[2]
        step = self.engine.step(layer.stream, layer.tokens - q.shape[2], q, spec, position_ids, cached=cached)
        self._write(layer, step, q, k, v, cached)
        inside, plain = rows_inside(step, spec, self.engine.setup.plain_inside), None
        if inside is not False:  # rows inside the window stay under the frequencies of the first segment
            epoch = self._segments(step)[0][2]
            if self.grows and layer.epoch != epoch:
                self._rerotate(layer, step, epoch, like=q)
            mask = own_mask(spec, self.engine.implementation, layer)
            plain = own(self._rotate(q, step, TRUE, epoch, "queries"), layer.recent.view(TRUE), layer.recent.view("v"), mask)
            if inside is True:
                return plain
        options = Options(scale, softcap, sinks, self.added if self.added.biased else None)
        if self.chooser is not None:
            extend_summaries(layer, step, self.chooser, self._turn, scale)
        if not self.by_row or step.start_min == step.start_max:
            out = self._run(layer, step, q, options)
        else:
            out = torch.cat([self._run(layer.row(row), step.row(row), q[row : row + 1], options) for row in range(q.shape[0])])
        out = out.transpose(1, 2)
        return out if plain is None or isinstance(inside, bool) else torch.where(inside[:, None, None, None], plain, out)

    def _run(self, layer: BandLayer, step: Step, q: Tensor, options: Options) -> Tensor:
        """Attention output [B, H, T, D] of the new tokens, of rows that are laid out alike."""
        outs = []
        for begin, end, epoch in self._segments(step):
            if self.grows and layer.epoch != epoch:
                self._rerotate(layer, step, epoch, like=q)
            outs.append(self._segment(layer, step, q[:, :, begin:end], begin, end, epoch, options))
        return outs[0] if len(outs) == 1 else torch.cat(outs, 2)

    def _segments(self, step: Step) -> list[tuple[int, int, Epoch]]:
        """Runs of queries for one length of the text: (begin, end, epoch), counted in the new tokens."""
        setup = self.engine.setup
        if self.native_window is not None or (setup.following is None and not self.dynamic):
            return [(0, step.count, None)]
        if "segments" not in step.memo:
            if setup.following is not None:
                length = setup.following.text_length(step.places, self.context)
            else:
                assert setup.frequencies is not None  # noqa: S101 - dynamic layers have it
                length = setup.frequencies.lengths(step.t)
            cuts = [0, *((length.diff() != 0).any(0).nonzero()[:, 0] + 1).tolist(), step.count]
            step.memo["segments"] = [(a, b, tuple(length[:, a].tolist())) for a, b in pairwise(cuts)]
        segments: list[tuple[int, int, Epoch]] = step.memo["segments"]
        return segments

    def _write(self, layer: BandLayer, step: Step, q: Tensor, k: Tensor, v: Tensor, cached: bool) -> None:
        channels: dict[object, Tensor] = {"v": v}
        epoch = None
        if self.added.agings:
            channels[AGES] = self._ages(layer, step)
        if self.plan.raw:
            channels["raw"] = k
        if self.dynamic:
            epoch = layer.epoch = self._segments(step)[0][2] if layer.epoch is None else layer.epoch
        sinks: dict[object, Tensor] = {name: channels[name] for name in ("v", AGES) if name in channels}
        for maps, into in ((self.plan.maps, channels), (self.plan.sink_maps, sinks)):
            for position in maps:
                # Under autocast rotation is in float32 and attention is not.
                into[position] = self._rotate(k, step, position, epoch, "keys").to(v.dtype)
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

    def _rotate(self, x: Tensor, step: Step, position: PositionMap, epoch: Epoch, side: Side, begin: int = 0) -> Tensor:
        """x [B, H, n, D], the new tokens from `begin` on, rotated to their positions."""
        if self.rotation is None:
            return x
        key = (self.rotation.layer_type, position, epoch if self.dynamic else None, side if self.decays else None, begin, x.shape[2])
        if key not in step.memo:
            # Where a method counts in chunks, so do its positions: the two may not drift apart at padding inside a row.
            t = step.memo["blocks"] if isinstance(position, ByBlocks) else step.places if self.by_row and not step.skips else step.t
            step.memo[key] = self._tables(position, t[:, begin : begin + x.shape[2]], epoch, x, step, side)
        return self.rotation(x, *step.memo[key])

    def _turn(self, x: Tensor, position: PositionMap, first: int, step: Step) -> Tensor:
        """x [B, H, n, D], tokens at the indices from `first` on (padding before index 0), rotated to their positions."""
        if self.rotation is None:
            return x
        key = ("turn", self.rotation.layer_type, position, first, x.shape[2])
        if key not in step.memo:
            t = torch.arange(first, first + x.shape[2], device=x.device).clamp(min=0)
            step.memo[key] = self._tables(position, t[None], None, x, step, "keys")
        return self.rotation(x, *step.memo[key])

    def _tables(self, position: PositionMap, t: Tensor, epoch: Epoch, like: Tensor, step: Step, side: Side) -> tuple[Tensor, Tensor]:
        assert self.angles is not None  # noqa: S101 - callers checked
        # Where short texts have to come out as they were, it is counted as the model counts: the same distances, and the same last bit.
        offset = step.offset if self.engine.setup.plain_inside is not None else None
        return self.angles(position, t, epoch, like, step.end, offset, side)

    def _rerotate(self, layer: BandLayer, step: Step, epoch: Epoch, like: Tensor) -> None:
        """Bring all kept keys under the frequencies of `epoch`."""
        assert self.rotation is not None and layer.stream.indices is not None  # noqa: S101 - dynamic layers have both
        for position in self.plan.maps:
            key = ("all", position, epoch)
            if key not in step.memo:
                step.memo[key] = self._tables(position, layer.stream.indices, epoch, like, step, "keys")
            layer.recent.replace(position, self.rotation(layer.recent.view("raw"), *step.memo[key]))
        layer.epoch = epoch

    def _segment(self, layer: BandLayer, step: Step, q: Tensor, begin: int, end: int, epoch: Epoch, options: Options) -> Tensor:
        """Attention output [B, H, end - begin, D] of the queries [begin, end) of the step."""
        factor = self._temperature(step, begin, end)
        rotated: dict[PositionMap, Tensor] = {}

        def turned(position: PositionMap, rows: slice) -> Tensor:
            found = self._rotate(q[:, :, rows], step, position, epoch, "queries", begin + rows.start)
            return found if factor is None else found * factor[:, :, rows].to(q.dtype)

        def whole(position: PositionMap) -> Tensor:
            if position not in rotated:
                rotated[position] = turned(position, slice(0, end - begin))
            return rotated[position]

        merge, slot, views = Merge(), step.first + begin, self.views
        if self.added.prefixes:
            for out, lse in self.added.prefix(self._rotate(q, step, TRUE, epoch, "queries", begin)):
                merge.add(out, lse, slice(0, end - begin), end - begin)
        if epoch is not None and self.engine.setup.following is not None:
            views = self.engine.setup.following.bands_at(self.context, epoch[0])
        for view in views:
            if isinstance(view, Selection):
                pieces = chosen_pieces(layer, step, view, q, turned, slot, options.scale, options.softcap)
            elif view.sinks is not None:
                pieces = sink_pieces(layer, step, view, whole(view.queries), slot, options)
            else:
                keys = self._keys(layer, step, view)
                pieces = recent_pieces(layer, step, view, whole(view.queries), keys, slot, options)
            for rows, out, lse in pieces:
                merge.add(out, lse, rows, end - begin)
        return merge.result(options.sinks, q)

    def _keys(self, layer: BandLayer, step: Step, band: Band) -> Tensor:
        """The kept keys under the band's map [B, K, n, D]: written so, or, where that changes with the text, made of the unrotated ones."""
        if band.keys in self.plan.maps:
            return layer.recent.view(band.keys)
        count = min(step.end, step.start_min + (step.end if band.before is None else band.before))
        raw = layer.recent.view("raw")
        position, done, copy = layer.placed.get(layer.index, (None, 0, raw[:, :, :0]))
        needs_grad = torch.is_grad_enabled() and raw.requires_grad  # writing in place would break gradients
        if position != band.keys or needs_grad:
            done = 0
        if done < count:
            new = self._turn(raw[:, :, done:count], band.keys, done - step.start_min, step).to(layer.recent.view("v").dtype)
            if needs_grad:
                return new
            if done == 0 or count > copy.shape[2]:
                grown = new.new_empty(*raw.shape[:2], int(count * 1.5), raw.shape[3])
                grown[:, :, :done] = copy[:, :, :done]
                copy = grown
            copy[:, :, done:count] = new
            layer.placed[layer.index] = (band.keys, count, copy)
        return copy[:, :, :count]

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


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
    """The attention function registered with transformers."""
    layer: LayerEngine = module.__dict__[NAME]
    if options.get("dropout"):
        raise LongreachError("attention dropout is not supported under a longreach method; set attention_dropout to 0")
    if options.get("output_attentions"):
        raise LongreachError("attention weights do not exist under a longreach method; leave out output_attentions")
    scale = options.get("scaling")
    return (
        layer.attend(
            query, key, value, attention_mask, options.get("position_ids"),
            query.shape[-1] ** -0.5 if scale is None else scale, options.get("softcap"), options.get("s_aux"),
            own_attention(module, layer.engine.implementation, options),
        ),
        None,
    )  # fmt: skip


@contextmanager
def installed(model: PreTrainedModel, attentions: list[Attention], setup: Setup, trained_window: int) -> Iterator[Engine]:
    """The engine in place on the model; on leaving, everything is as it was."""
    engine = Engine(model, attentions, setup, trained_window)
    with ExitStack() as undo:
        undo.callback(engine.close)
        for attention, layer in zip(attentions, engine.layers.values(), strict=True):
            attention.module.__dict__[NAME] = layer
            undo.callback(attention.module.__dict__.pop, NAME, None)
            if layer.added.agings:
                undo.callback(attention.module.register_forward_pre_hook(layer.see, with_kwargs=True).remove)
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, NAME, _attention))
        hook = model.base_model.register_forward_pre_hook(engine.before_forward, with_kwargs=True)
        undo.callback(hook.remove)
        yield engine
