"""Deferred rotation: runs bands on unmodified transformers models.

The model's rotary modules return cos = 1 and sin = 0, so that queries and keys arrive unrotated at an attention function registered
with transformers. It rotates keys once, when they are written to the cache, into one copy for each position map in use, rotates
queries as each band wants them, computes the bands piece by piece with fused attention and merges the pieces by log-sum-exp.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache, PreTrainedModel, StaticCache

from longreach.core.bands import FULL, Band, LayerContext, PositionMap
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.models import rotation
from longreach.models._fused import Merge, attend
from longreach.models._pieces import Piece, cut
from longreach.models._store import BandLayer, Channels, Plan, Stream
from longreach.models._stream import MaskSpec, Step, make_step
from longreach.models.interface import interface
from longreach.models.rotation import Attention

NAME = "longreach"
# In float32 the product of position and frequency loses the angle little by little (6e-8 of the position): streams without end need better.
_EXACT_FROM = 1 << 16
Epoch = tuple[int, ...] | None  # the context length that each row's frequencies are for; None: the model's own frequencies


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the engine runs. bands, temperature: of a layer with full attention. keep_all: forget nothing. frequencies: (length that the
    frequencies at index t are for [B | 1, T] -> same shape; that length -> inv_freq [R/2] and factor), for length-dependent positions.
    """

    bands: Callable[[LayerContext], tuple[Band, ...]]
    temperature: Callable[[Tensor, LayerContext], Tensor | None]
    keep_all: bool = False
    lengths: Callable[[Tensor], Tensor] | None = None
    inv_freq: Callable[[int], tuple[Tensor, float]] | None = None


FULL_SETUP = Setup(bands=lambda layer: FULL, temperature=lambda t, layer: None)


class Engine:
    """The state of one applied setup: what it learned of the model, and the cache of the forward pass under way."""

    def __init__(self, model: PreTrainedModel, attentions: list[Attention], setup: Setup, trained_window: int) -> None:
        self.setup = setup
        self.config = model.config.get_text_config()
        self.rotaries = [module for _, _, module in rotation.rotary_modules(model)]
        self.streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self.cache: Cache | None = None
        self.layers: dict[int, LayerEngine] = {}
        for index, attention in enumerate(attentions):
            context = LayerContext(
                layer_idx=index, num_layers=len(attentions), num_heads=attention.num_heads, num_kv_heads=attention.num_kv_heads,
                head_dim=attention.head_dim, trained_window=trained_window,
            )  # fmt: skip
            slot = getattr(attention.module, "layer_idx", index)
            self.layers[slot] = LayerEngine(self, attention, context, slot)

    def before_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the model a cache made of the engine's layers (a hook before each forward pass)."""
        cache = kwargs.get("past_key_values")
        use_cache = kwargs.get("use_cache")
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            checkpointing = module.training and getattr(module, "gradient_checkpointing", False)
            cache = kwargs["past_key_values"] = None if checkpointing else DynamicCache(config=self.config)
        if cache is not None:
            self._adopt(cache)
        self.cache = cache
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
            keep = self.setup.lengths is not None
            stream.step = make_step(stream, first, x, spec, position_ids, cached=cached, keep_indices=keep)
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
        self.bands = setup.bands(context) if self.native_window is None else (Band(hi=self.native_window - 1),)
        self.dynamic = setup.lengths is not None and self.rotation is not None and self.native_window is None
        self.plan = Plan.of(self.bands, keep_all=setup.keep_all and self.native_window is None, raw=self.dynamic)
        if self.dynamic and (self.plan.num_sinks or self.plan.window is not None):
            raise UnsupportedError("length-dependent positions", "a method that forgets", "its window never grows", "leave one of them out")

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
    ) -> Tensor:
        """Attention output [B, T, H, D] of unrotated q [B, H, T, D] and k, v [B, K, T, D]; what came before is in the cache."""
        kept = self.engine.cache.layers[self.cache_index] if self.engine.cache is not None else None
        if cached := isinstance(kept, BandLayer) and kept.pending is not None:
            layer: BandLayer = kept
        else:
            if k.shape[2] != q.shape[2]:
                raise LongreachError(
                    "the cache of this forward pass did not reach the engine; pass it to the model by name (past_key_values=)"
                )
            # What the layers of a pass share hangs on its mask: a layer that is computed again for its gradients finds its own there.
            layer = BandLayer(self.plan, spec.stream if isinstance(spec, MaskSpec) else Stream(), leads=False)
            layer.tokens = q.shape[2]
        step = self.engine.step(layer.stream, layer.tokens - q.shape[2], q, spec, position_ids, cached=cached)
        segments = self._segments(step)
        self._write(layer, step, k, v, segments[0][2], cached)
        outs = []
        for begin, end, epoch in segments:
            if self.dynamic and layer.epoch != epoch:
                self._rerotate(layer, step, epoch, like=k)
            outs.append(self._segment(layer, step, q[:, :, begin:end], begin, end, epoch, scale, softcap, sinks))
        return (outs[0] if len(outs) == 1 else torch.cat(outs, 2)).transpose(1, 2)

    def _segments(self, step: Step) -> list[tuple[int, int, Epoch]]:
        """Runs of queries under the same frequencies: (begin, end, epoch), counted in the new tokens."""
        lengths = self.engine.setup.lengths
        if not self.dynamic or lengths is None:
            return [(0, step.count, None)]
        if "segments" not in step.memo:
            length = lengths(step.t)
            cuts = [0, *((length.diff() != 0).any(0).nonzero()[:, 0] + 1).tolist(), step.count]
            step.memo["segments"] = [(a, b, tuple(length[:, a].tolist())) for a, b in pairwise(cuts)]
        segments: list[tuple[int, int, Epoch]] = step.memo["segments"]
        return segments

    def _write(self, layer: BandLayer, step: Step, k: Tensor, v: Tensor, epoch: Epoch, cached: bool) -> None:
        channels: dict[object, Tensor] = {"v": v}
        if self.plan.raw:
            channels["raw"] = k
            epoch = epoch if layer.epoch is None else layer.epoch
            layer.epoch = epoch
        sinks: dict[object, Tensor] = {"v": v}
        for maps, into in ((self.plan.maps, channels), (self.plan.sink_maps, sinks)):
            for position in maps:
                # Under autocast rotation is in float32 and attention is not.
                into[position] = self._rotate(k, step, position, epoch).to(v.dtype)
        if cached:
            layer.forget()
            layer.write(channels, sinks)
        else:
            layer.recent = Channels.holding(channels)
            if self.plan.num_sinks:
                layer.write_sinks(sinks, 0)

    def _rotate(self, x: Tensor, step: Step, position: PositionMap, epoch: Epoch, begin: int = 0) -> Tensor:
        """x [B, H, n, D], the new tokens from `begin` on, rotated to their positions."""
        if self.rotation is None:
            return x
        key = (self.rotation.layer_type, position, epoch, begin, x.shape[2])
        if key not in step.memo:
            step.memo[key] = self._tables(position(step.t[:, begin : begin + x.shape[2]]), epoch, x, step.end)
        return self.rotation(x, *step.memo[key])

    def _tables(self, positions: Tensor, epoch: Epoch, like: Tensor, step_end: int) -> tuple[Tensor, Tensor]:
        """cos and sin [B | 1, T, R/2] at positions [B | 1, T]."""
        assert self.rotation is not None  # noqa: S101 - callers checked
        if epoch is None or self.engine.setup.inv_freq is None:
            rotary = self.engine.rotaries[self.rotation.rotary]
            if self.plan.window is not None and step_end > _EXACT_FROM:
                return rotation.exact_angles(rotary, like, positions, self.rotation.layer_type)
            cos, sin = rotation.table(rotary, like, positions, self.rotation.layer_type)
            return self.rotation.angles(cos), self.rotation.angles(sin)
        found = [self.engine.setup.inv_freq(length) for length in epoch]
        frequencies = torch.stack([f for f, _ in found]).to(like.device)[:, None]
        factors = torch.tensor([factor for _, factor in found], device=like.device)[:, None, None]
        angles = positions[..., None].float() * frequencies
        return (angles.cos() * factors).to(like.dtype), (angles.sin() * factors).to(like.dtype)

    def _rerotate(self, layer: BandLayer, step: Step, epoch: Epoch, like: Tensor) -> None:
        """Bring all kept keys under the frequencies of `epoch`."""
        assert self.rotation is not None and layer.stream.indices is not None  # noqa: S101 - dynamic layers have both
        for position in self.plan.maps:
            key = ("all", position, epoch)
            if key not in step.memo:
                step.memo[key] = self._tables(position(layer.stream.indices), epoch, like, step.end)
            layer.recent.replace(position, self.rotation(layer.recent.view("raw"), *step.memo[key]))
        layer.epoch = epoch

    def _segment(
        self,
        layer: BandLayer,
        step: Step,
        q: Tensor,
        begin: int,
        end: int,
        epoch: Epoch,
        scale: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        """Attention output [B, H, end - begin, D] of the queries [begin, end) of the step."""
        factor = self._temperature(step, begin, end)
        rotated: dict[PositionMap, Tensor] = {}
        merge = Merge()
        for band in self.bands:
            if band.queries not in rotated:
                turned = self._rotate(q, step, band.queries, epoch, begin)
                rotated[band.queries] = turned if factor is None else turned * factor.to(q.dtype)
            queries = rotated[band.queries]
            compute = self._sink_pieces if band.sinks is not None else self._recent_pieces
            for rows, out, lse in compute(layer, step, band, queries, step.first + begin, scale, softcap):
                merge.add(out, lse, rows, end - begin)
        return merge.result(sinks, q)

    def _temperature(self, step: Step, begin: int, end: int) -> Tensor | None:
        if self.native_window is not None:
            return None
        key = ("temperature", self.context.layer_idx)
        if key not in step.memo:
            step.memo[key] = self.engine.setup.temperature(step.t, self.context)
        factor: Tensor | None = step.memo[key]
        return None if factor is None else factor[:, None, begin:end, None]

    def _recent_pieces(
        self, layer: BandLayer, step: Step, band: Band, q: Tensor, slot: int, scale: float, softcap: float | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        keys, values, oldest = layer.recent.view(band.keys), layer.recent.view("v"), layer.oldest
        first = max(oldest, step.start_min + band.after)
        ragged = step.start_max + band.after if step.start_max != step.start_min else 0
        if step.valid is not None:
            ragged = step.end
        for piece in cut(slot, slot + q.shape[2], band.lo, band.hi, first, ragged):
            rows = slice(piece.q0 - slot, piece.q1 - slot)
            part = slice(piece.k0 - oldest, piece.k1 - oldest)
            out, lse = _piece(piece, q[:, :, rows], keys[:, :, part], values[:, :, part], self._mask(piece, band, step), scale, softcap)
            yield rows, out, lse

    def _mask(self, piece: Piece, band: Band, step: Step) -> Tensor | None:
        if piece.shape != "masked":
            return None
        i = torch.arange(piece.q0, piece.q1, device=step.t.device)[:, None]
        j = torch.arange(piece.k0, piece.k1, device=step.t.device)
        seen = (i - j >= band.lo) & (j >= (step.start + band.after)[:, None, None])
        if band.hi is not None:
            seen = seen & (i - j <= band.hi)
        if step.valid is not None:
            seen = seen & step.valid[:, None, piece.k0 : piece.k1]
        return seen[:, None]

    def _sink_pieces(
        self, layer: BandLayer, step: Step, band: Band, q: Tensor, slot: int, scale: float, softcap: float | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        count = min(band.sinks or 0, step.end - step.start_min)
        if count <= 0:
            return
        keys, values = layer.first[band.keys][:, :, :count], layer.first["v"][:, :, :count]
        last = slot + q.shape[2] - 1
        mask = None
        settled = slot - (step.start_max + count - 1) >= band.lo and (band.hi is None or last - step.start_min <= band.hi)
        if not settled or step.valid is not None:
            j = step.start[:, None, None] + torch.arange(count, device=q.device)
            distance = torch.arange(slot, last + 1, device=q.device)[:, None] - j
            seen = distance >= band.lo
            if band.hi is not None:
                seen = seen & (distance <= band.hi)
            if step.valid is not None:
                there = step.valid.gather(1, j[:, 0].clamp(max=step.end - 1))
                seen = seen & there[:, None]
            if not bool(seen.any()):
                return
            mask = seen[:, None].expand(q.shape[0], -1, -1, -1)
        yield (slice(0, q.shape[2]), *attend(q, keys, values, scale=scale, mask=mask, softcap=softcap))


def _piece(
    piece: Piece, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    if piece.shape == "upper":  # reversed, the window's far edge is a causal edge
        out, lse = attend(q.flip(2), k.flip(2), v.flip(2), scale=scale, causal=True, softcap=softcap)
        return out.flip(2), lse.flip(2)
    mask = None if mask is None else mask.expand(q.shape[0], -1, -1, -1)
    return attend(q, k, v, scale=scale, causal=piece.shape == "lower", mask=mask, softcap=softcap)


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
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, NAME, _attention))
        hook = model.base_model.register_forward_pre_hook(engine.before_forward, with_kwargs=True)
        undo.callback(hook.remove)
        yield engine
