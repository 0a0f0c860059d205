"""What a cache held at one time: taken and put back, so that one reading of a text serves many questions.

engine/snapshot_files.py keeps snapshots in files. docs/guide-memory.md has an example.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, EncoderDecoderCache, StaticCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from longreach.core.errors import InputError, LongreachError
from longreach.engine._groups import GroupedLayer, maps_of
from longreach.engine._pages import Pages
from longreach.engine._store import CLOSED, HALF_WRITTEN, OUTSIDE, BandLayer, Held
from longreach.engine._stream import Stream
from longreach.engine._tree import Place, Reader, Writer, copied, in_place
from longreach.engine.stock import GrowingLayer, keeps_all
from longreach.engine.watch import ClosedLayer, Watch, watch_of


@dataclass(frozen=True, kw_only=True)
class Plain:
    """What a layer of transformers' own holds. Args: window, seen, records: of one with a sliding window."""

    keys: Tensor
    values: Tensor
    window: int | None = None
    seen: int = 0
    records: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """A layer, or what layers share, as plain data.

    Args: kind: `bands`, `plain`, `stream`, or `none` where there is nothing. node, frozen, tensors, pages: as engine/_tree.py writes them.
    device: where a restored cache wants copies of the tensors; None: they lie where they are wanted.
    """

    kind: str
    node: Any = None
    frozen: Sequence[Any] = ()
    tensors: Sequence[Tensor] = ()
    pages: Sequence[Pages] = ()
    device: torch.device | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """What a cache held at one time. `snapshot` takes one, `restore` puts it back; engine/snapshot_files.py keeps it in a file.

    Args: caches: the parts of every layer and, last, what they share; of an encoder-decoder first what it wrote, then what it read.
    watch: of the methods that it was taken under. tokens: that had been read.
    """

    caches: tuple[tuple[Part, ...], ...]
    watch: Watch | None
    tokens: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, those that are shared with a cache included."""
        return sum(tensor.nbytes for parts in self.caches for part in parts for tensor in part.tensors)


def snapshot(cache: Cache) -> Snapshot:
    """What `cache` holds now, whatever happens to it later: more reading, `crop`, other rows of the batch, `reset`.

    It keeps the live bytes of the cache: of one that keeps everything all keys and values, of one that is bounded what the bound leaves and
    the tokens of the last forward pass, which can still be taken back. Tensors that are never changed in place (what stores hold, all of
    transformers' layers) are shared with the cache until that goes on; the window, which is written in place, is copied.

    Under a method a snapshot belongs to its model. Without one (and for every encoder-decoder) neither a cache nor a snapshot knows which
    model filled it: the caller answers for that.

    Args: cache: of the engine, whatever its stores, or a DynamicCache or EncoderDecoderCache of transformers.
    Raises: LongreachError for a cache that is empty, half written, carries gradients, was filled under a method that is no longer
    applied, or is of a kind that cannot be kept (static, quantized, offloaded, states of linear attention).
    """
    inner, watch = _inner(cache), watch_of(cache)
    for each in inner:
        _check(each.layers, watch)
    if not (tokens := int(cache.get_seq_length())):
        raise LongreachError("this cache is empty; read something before a snapshot is taken")
    with torch.no_grad():
        return Snapshot(caches=tuple(_parts(each) for each in inner), watch=watch, tokens=tokens)


def settle(cache: Cache) -> None:
    """Make a cache under methods as small as reading on makes it, before a snapshot is taken that is to be kept.

    A prompt that is cut at its end is cut now, and not when the token after it is read. Nothing can be taken back from the cache then.
    Raises: LongreachError for a cache that a forward pass left half written.
    """
    for layer in (layer for part in _inner(cache) for layer in part.layers if isinstance(layer, BandLayer)):
        if layer.pending is not None:
            raise LongreachError(HALF_WRITTEN)
        layer.settle()


def restore(cache: Cache, taken: Snapshot) -> None:
    """Make `cache` what it was when the snapshot was taken, or make an empty one a second such cache. Any number of times.

    Whatever happened to the cache since is undone, also a forward pass that was interrupted. It costs a copy of the window, which is
    written in place; of a snapshot from a file, a copy of all.

    Without a method the caller answers for the model (see `snapshot`). Then what a filled cache holds is compared with the snapshot:
    layers, key-value heads, head dimensions, windows, dtypes and devices. Models that are alike in all of these it does not tell apart.

    Args: cache: the one that the snapshot was taken of, or an empty one for the same model. taken: by `snapshot`, or loaded from a file.
    Raises: LongreachError where the snapshot's method is no longer applied, or for a cache that was filled under something else, or by a
    model of another shape; InputError for a snapshot from a file that holds something else than it should. The cache is then as it was.
    """
    check_snapshot(taken)
    inner = _inner(cache)
    if len(inner) != len(taken.caches):
        raise LongreachError(f"the snapshot is of another kind of cache than a {type(cache).__name__}")
    _claim(cache, taken)
    with torch.no_grad():
        ready = [_read(each, parts) for each, parts in zip(inner, taken.caches, strict=True)]
    for each, found in zip(inner, ready, strict=True):
        _put(each, found)
    if isinstance(cache, EncoderDecoderCache):
        read = cache.cross_attention_cache
        cache.is_updated = {index: read.get_seq_length(index) > 0 for index in range(len(read))}


def check_snapshot(taken: Snapshot) -> None:
    """Raise LongreachError for what is no snapshot."""
    if not isinstance(taken, Snapshot):
        raise LongreachError(f"a {type(taken).__name__} is no snapshot; call snapshot(cache), then restore(cache, taken)")


def plain(part: Part, place: Place = in_place) -> Plain:
    """What a `plain` part says. Raises: ValueError, TypeError, LookupError or AttributeError where it is something else."""
    held: Plain = Reader(part.frozen, part.tensors, place).read(Plain, part.node)
    return held


def _inner(cache: Cache) -> list[Cache]:
    """The caches that one is made of. Raises: LongreachError for kinds that hold more than their layers."""
    if not isinstance(cache, Cache):
        raise LongreachError(f"a {type(cache).__name__} is no cache; give one that a model has filled, as a DynamicCache")
    if isinstance(cache, EncoderDecoderCache):
        return [*_inner(cache.self_attention_cache), *_inner(cache.cross_attention_cache)]
    if type(cache) not in (Cache, DynamicCache, StaticCache):  # a static one is the engine's, or its layers are refused
        raise LongreachError(f"a {type(cache).__name__} has no snapshots; use a DynamicCache")
    if cache.offloading:
        raise LongreachError("a cache that is offloaded has no snapshots; use one with offloading=False")
    return [cache]


def _check(layers: Sequence[Any], watch: Watch | None) -> None:
    """Raise LongreachError for layers that no snapshot can be taken of."""
    for layer in layers:
        if isinstance(layer, ClosedLayer) or (isinstance(layer, BandLayer) and layer.stream.closed):
            raise LongreachError(CLOSED)
        if isinstance(layer, BandLayer) and watch is None:
            raise LongreachError(OUTSIDE)
        _check_kind(layer)
    if len({int(layer.get_seq_length()) for layer in layers if not _holds_nothing(layer)}) > 1:
        raise LongreachError(HALF_WRITTEN)


def _check_kind(layer: Any) -> None:
    known = keeps_all(layer) or type(layer) in (BandLayer, GroupedLayer, DynamicSlidingWindowLayer)
    if not _holds_nothing(layer) and not known:
        raise LongreachError(f"a cache with a {type(layer).__name__} has no snapshots; use a DynamicCache of attention layers")


def _holds_nothing(layer: Any) -> bool:
    """Layers without attention, and those that look into the cache of another one."""
    return layer is None or type(layer).__name__ == "DummyLayer"


def _parts(cache: Cache) -> tuple[Part, ...]:
    stream = next((layer.stream for layer in cache.layers if isinstance(layer, BandLayer)), None)
    shared = Part(kind="none") if stream is None else _written("stream", replace(stream, step=None))
    return (*(_part(layer) for layer in cache.layers), shared)


def _part(layer: Any) -> Part:
    if _holds_nothing(layer):
        return Part(kind="none")
    if isinstance(layer, BandLayer):
        return _written("bands", layer.held(), maps_of(layer))
    held = Plain(keys=layer.keys, values=layer.values)
    if isinstance(layer, DynamicSlidingWindowLayer):
        held = replace(held, window=layer.sliding_window, seen=layer.cumulative_length, records=layer.record_past)
    return _written("plain", held)


def _written(kind: str, value: Any, maps: Sequence[object] = ()) -> Part:
    writer = Writer(maps)
    node = writer.write(value)
    return Part(kind=kind, node=node, frozen=writer.frozen, tensors=writer.tensors, pages=writer.pages)


def _claim(cache: Cache, taken: Snapshot) -> None:
    """See to it that the cache may hold what was read under the snapshot's methods. Raises: LongreachError."""
    owner = watch_of(cache)
    if taken.watch is not None and taken.watch.closed:
        why = f"was taken under {taken.watch.spec}, which is no longer applied"
        raise LongreachError(f"the snapshot {why}; apply it and read again, or load the snapshot from a file")
    if owner is taken.watch:
        return
    if owner is not None or cache.get_seq_length():
        raise LongreachError("this cache was filled under something else than the snapshot's; give that one, or an empty one")
    if taken.watch is not None:
        taken.watch.claim(cache)


def _read(cache: Cache, parts: Sequence[Part]) -> list[Any]:
    """What was written, for each layer and, last, for all of them. Raises: LongreachError, InputError."""
    here: list[Any] = cache.layers
    missing = () if here else parts[:-1]  # a cache that was made without a config grows
    alike = all(isinstance(layer, BandLayer) == (part.kind == "bands") for layer, part in zip(here, parts, strict=False))
    if len(here) + len(missing) != len(parts) - 1 or not alike or any(part.kind != "plain" for part in missing):
        raise LongreachError(f"the snapshot has {len(parts) - 1} layers, not those of this cache; give a DynamicCache(config=model.config)")
    try:
        return [_made(part, layer) for part, layer in zip(parts, [*here, *[None] * len(missing), None], strict=True)]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"the snapshot holds something else than this model's caches ({error}); read the text again") from error


def _made(part: Part, layer: Any) -> Any:
    """What a part says of `layer`: what that is to hold, or a layer in its place."""
    if part.kind == "none":
        return layer
    place = in_place if part.device is None else copied(part.device)
    if part.kind == "plain":
        made = _plain_layer(plain(part, place))
        _check_place(layer, made)
        return made
    if part.kind == "stream":
        return Reader(part.frozen, part.tensors, place, host=Stream.host_fields).read(Stream, part.node)
    store = layer.store
    state = None if store is None else store.state_class
    return Reader(part.frozen, part.tensors, place, maps_of(layer), state, pages=part.pages).read(Held, part.node)


def _plain_layer(held: Plain) -> DynamicLayer:
    layer = GrowingLayer() if held.window is None else DynamicSlidingWindowLayer(sliding_window=held.window)
    layer.lazy_initialization(held.keys, held.values)
    layer.keys, layer.values = held.keys, held.values
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length, layer.record_past = held.seen, held.records
    return layer


def _check_place(layer: Any, made: DynamicLayer) -> None:
    """Raise LongreachError where the layer was filled by a model of another shape than the one that is to stand in its place."""
    _check_kind(layer)
    now, then = _form(layer), _form(made)
    if now and now != then:
        raise LongreachError(f"this cache was filled by another model ({now}) than the snapshot ({then}); give its own, or an empty one")


def _form(layer: Any) -> str:
    """What a model alone decides of a layer; "" of an empty one."""
    keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
    if keys is None or values is None or not keys.numel():
        return ""
    dims = " and ".join(dict.fromkeys(str(tensor.shape[-1]) for tensor in (keys, values)))
    window = f" in a window of {layer.sliding_window}" if isinstance(layer, DynamicSlidingWindowLayer) else ""
    return f"{keys.shape[1]} heads of {dims} dimensions ({str(keys.dtype).removeprefix('torch.')}, {keys.device}){window}"


def _put(cache: Cache, found: Sequence[Any]) -> None:
    *layers, shared = found
    for index, each in enumerate(layers):
        if not isinstance(each, Held):
            cache.layers[index : index + 1] = [each]
            continue
        layer: Any = cache.layers[index]
        layer.hold(each)
        layer.stream.__dict__.update(vars(shared))
