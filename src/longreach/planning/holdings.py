"""What a cache holds: every storage that it keeps alive, by the part of the cache that it belongs to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from transformers import Cache

from longreach.core.memory import Storage
from longreach.engine._channels import Channels
from longreach.engine._pages import Pages
from longreach.engine._stream import Step

Form = Literal["channels", "pages", "plain"]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One part of a cache. Args: count: tokens or blocks that are live in a buffer that grows, and bytes of anything else. unit: bytes of
    each. kept: bytes of its storage, with the room that is still free.
    """

    form: Form
    place: Storage
    count: float
    unit: float
    kept: float

    @property
    def live(self) -> float:
        """Bytes in use."""
        return self.count * self.unit

    def __add__(self, other: "Holding") -> "Holding":
        """Both as one: what is no buffer, or several buffers that are filled alike."""
        plain = self.form == "plain"
        return Holding(
            form=self.form, place=self.place, count=self.count + other.count if plain else self.count,
            unit=self.unit if plain else self.unit + other.unit, kept=self.kept + other.kept,
        )  # fmt: skip


Parts = dict[str, Holding]


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """Args: layers: of each layer of the cache, name of a part -> what it is. shared: what all layers share."""

    layers: tuple[Parts, ...]
    shared: Parts

    @property
    def kept(self) -> float:
        """Bytes of all storages."""
        return sum(piece.kept for pieces in self.parts for piece in pieces.values())

    @property
    def live(self) -> float:
        """Bytes in use."""
        return sum(piece.live for pieces in self.parts for piece in pieces.values())

    @property
    def parts(self) -> tuple[Parts, ...]:
        """The layers, and what they share."""
        return (*self.layers, self.shared)


def holdings(cache: Cache) -> Holdings:
    """What a filled cache holds now, each storage once."""
    seen: set[Any] = set()
    streams = {id(layer.stream): layer.stream for layer in cache.layers if hasattr(layer, "stream")}
    shared = _pieces(list(streams.values()), seen)
    return Holdings(layers=tuple(_pieces(_buffers_first(layer), seen) for layer in cache.layers), shared=shared)


def _pieces(thing: Any, seen: set[Any]) -> Parts:
    found: Parts = {}
    for name, piece in _walk(thing, "", "device", seen):
        found[name] = found[name] + piece if name in found else piece
    return found


def _buffers_first(layer: Any) -> dict[str, Any]:
    """What a layer is made of: a buffer is told as one, also where an empty part of it stands elsewhere."""
    return dict(sorted(vars(layer).items(), key=lambda each: not isinstance(each[1], Channels)))


def _walk(thing: Any, name: str, place: Storage, seen: set[Any]) -> Iterator[tuple[str, Holding]]:
    """Lists and tuples give their parts one name, for they grow with the text."""
    if isinstance(thing, Tensor):
        storage = thing.untyped_storage()
        if (storage.data_ptr(), "storage") not in seen:
            seen.add((storage.data_ptr(), "storage"))
            yield name, Holding(form="plain", place=place, count=storage.nbytes(), unit=1, kept=storage.nbytes())
        return
    # Of a step there are tables for the tokens of the last forward pass, which the next one replaces.
    if id(thing) in seen or isinstance(thing, nn.Module | type | Step):
        return
    if not isinstance(thing, str | bytes | int | float | list | tuple | dict):
        seen.add(id(thing))
    if isinstance(thing, Channels):
        for key, tensor in _named(thing.data):
            yield from _buffer("channels", f"{name}.{key}", tensor, tensor.shape[2], len(thing), place, seen)
    elif isinstance(thing, Pages):
        if id(thing.buffer) in seen:
            return
        seen.add(id(thing.buffer))
        for key, tensor in thing.buffer.data.items():
            yield from _buffer("pages", f"{name}.{key}", tensor, tensor.shape[0], thing.buffer.filled, thing.buffer.storage, seen)
    elif isinstance(thing, list | tuple):
        for inner in thing:
            yield from _walk(inner, name, place, seen)
    else:
        for key, inner in _named(thing):
            yield from _walk(inner, f"{name}.{key}", place, seen)


def _buffer(form: Form, name: str, tensor: Tensor, room: int, live: int, place: Storage, seen: set[Any]) -> Iterator[tuple[str, Holding]]:
    storage = tensor.untyped_storage()
    if storage.nbytes() and (storage.data_ptr(), "storage") not in seen:
        seen.add((storage.data_ptr(), "storage"))
        yield name, Holding(form=form, place=place, count=live, unit=storage.nbytes() / max(1, room), kept=storage.nbytes())


def _named(thing: Any) -> Iterator[tuple[str, Any]]:
    """What is in a thing, under names that are the same under other settings."""
    if isinstance(thing, dict):  # position maps are keys, too, and have settings of the method in them
        yield from ((key if isinstance(key, str) else str(number), inner) for number, (key, inner) in enumerate(thing.items()))
        return
    yield from getattr(thing, "__dict__", {}).items()
    for field in getattr(type(thing), "__slots__", ()):
        if hasattr(thing, field):
            yield field, getattr(thing, field)
