"""What a cache holds as plain data and back: numbers and names as JSON has them, the tensors beside.

Values are written by what they are and read by what their class says that they are (its type hints). So a state is any dataclass of
numbers, names, tensors, and of tuples, lists, dicts and dataclasses of those; nothing else has to be said of it.
"""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from longreach.core.errors import LongreachError
from longreach.engine._channels import Channels
from longreach.engine._pages import Pages

Place = Callable[[Tensor, bool], Tensor]  # (tensor, whether it belongs into the host's memory) -> where it is wanted
_SCALARS = (bool, int, float, str, NoneType)


class Writer:
    """Args: maps: the position maps that names of tensors may be; they are written as their place among these.

    tensors: those of what was written. A tensor that is all of its memory is taken as it is, one that is a part of a larger buffer is
    copied, and so is what is written in place (channels); pages are not, for they are never written again. frozen: what was written of
    frozen dataclasses: each once, so that what was one object is one again when it is read.
    """

    def __init__(self, maps: Sequence[object] = ()) -> None:
        self.maps = list(maps)
        self.tensors: list[Tensor] = []
        self.frozen: list[Any] = []
        self.pages: list[Pages] = []
        self._written: dict[int, tuple[object, int]] = {}  # by identity, with the object itself, which thus stays alive
        self._memory: dict[int, tuple[Tensor, int]] = {}  # by address

    def write(self, value: Any) -> Any:
        """JSON for `value`.

        Raises: LongreachError for tensors with gradients; TypeError for what is no plain data.
        """
        if isinstance(value, _SCALARS):
            return value
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, Channels):
            return [[self._key(name), self._tensor(value.view(name), copy=True)] for name in value.data]
        if isinstance(value, Pages):
            self.pages.append(value)  # as long as they are in use, nobody writes there
            tensors = [[name, self._shared(tensor)] for name, tensor in value.items()]
            return [len(self.pages) - 1, value.buffer.storage, tensors]
        if isinstance(value, dict):
            return [[self._key(key), self.write(each)] for key, each in value.items()]
        if isinstance(value, tuple | list):
            return [self.write(each) for each in value]
        if not is_dataclass(value) or isinstance(value, type):
            raise TypeError(f"a cache holds a {type(value).__name__}, which cannot be written as plain data")
        if not _is_frozen(type(value)):
            return self._fields(value)
        if id(value) not in self._written:
            self.frozen.append(self._fields(value))
            self._written[id(value)] = value, len(self.frozen) - 1
        return self._written[id(value)][1]

    def _fields(self, value: Any) -> dict[str, Any]:
        return {field.name: self.write(getattr(value, field.name)) for field in fields(value)}

    def _key(self, key: object) -> Any:
        return key if isinstance(key, str | int) else {"map": self.maps.index(key)}

    def _shared(self, tensor: Tensor) -> int:
        """What is never written again, also where it is a part of a larger buffer."""
        _check_has_no_gradient(tensor)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def _tensor(self, tensor: Tensor, copy: bool = False) -> int:
        _check_has_no_gradient(tensor)
        known, place = self._memory.get(tensor.data_ptr(), (None, 0))
        if not copy and known is not None and _alike(known, tensor):
            return place
        taken = tensor.clone() if copy or known is not None or tensor.untyped_storage().nbytes() != tensor.nbytes else tensor
        self.tensors.append(taken)
        if not copy and tensor.numel():
            self._memory[tensor.data_ptr()] = tensor, len(self.tensors) - 1
        return len(self.tensors) - 1


class Reader:
    """Args: frozen, tensors, maps: of the writer. place: puts tensors where they are wanted. state: what type variables stand for.

    host: names of fields whose tensors belong into the host's memory. pages: of the writer, where they are still there; else they are made
    of the tensors.
    """

    def __init__(
        self,
        frozen: Sequence[Any],
        tensors: Sequence[Tensor],
        place: Place,
        maps: Sequence[object] = (),
        state: type | None = None,
        host: AbstractSet[str] = frozenset(),
        pages: Sequence[Pages] = (),
    ) -> None:
        self.frozen, self.tensors, self.place, self.pages = frozen, tensors, place, pages
        self.maps, self.state, self.host = list(maps), state, host
        self._made: dict[int, Any] = {}
        self._placed: dict[int, Tensor] = {}

    def read(self, hint: Any, node: Any, host: bool = False) -> Any:
        """What was written, of the type `hint`; channels are copies, with room to grow.

        Raises: ValueError, TypeError, LookupError or AttributeError where it is something else.
        """
        if isinstance(hint, TypeVar):
            hint = self.state
        origin, arguments = get_origin(hint) or hint, get_args(hint)
        if origin in (Union, UnionType):
            (hint,) = (each for each in arguments if each is not NoneType)
            return None if node is None else self.read(hint, node, host)
        if origin is Tensor:
            return self._tensor(node, host)
        if origin is Channels:
            channels = Channels()
            if node:
                channels.append({self._key(name): self.place(self.tensors[index], host) for name, index in node})
            return channels
        if origin is Pages:
            index, storage, tensors = node
            if self.pages:
                return self.pages[index]
            return Pages.of({name: self._tensor(number, storage != "device") for name, number in tensors}, storage)
        if origin is dict:
            return {self._key(key): self.read(arguments[1], each, host) for key, each in node}
        if origin is list:
            return [self.read(arguments[0], each, host) for each in node]
        if origin is tuple:
            kinds = [arguments[0]] * len(node) if arguments[-1] is ... else arguments
            return tuple(self.read(kind, each, host) for kind, each in zip(kinds, node, strict=True))
        if is_dataclass(origin):
            return self._dataclass(origin, node)
        if not isinstance(node, _SCALARS) or (origin is not object and type(node) is not origin):
            raise ValueError(f"{node!r} is no {hint}")
        return node

    def _dataclass(self, kind: Any, node: Any) -> Any:
        if not _is_frozen(kind):
            return self._fields(kind, node)
        if node not in self._made:
            self._made[node] = self._fields(kind, self.frozen[node])
        return self._made[node]

    def _fields(self, kind: Any, node: dict[str, Any]) -> Any:
        hints = _hints(kind)
        return kind(**{name: self.read(hints[name], each, name in self.host) for name, each in node.items()})

    def _key(self, key: Any) -> object:
        return self.maps[key["map"]] if isinstance(key, dict) else key

    def _tensor(self, index: int, host: bool) -> Tensor:
        if index not in self._placed:
            self._placed[index] = self.place(self.tensors[index], host)
        return self._placed[index]


def copied(device: torch.device) -> Place:
    """Copies in memory of their own, on `device` or in the host's memory, where a GPU reads them best from pinned memory."""

    def place(tensor: Tensor, host: bool) -> Tensor:
        if host and device.type != "cpu":
            return tensor.pin_memory()
        return tensor.to(device, copy=True)

    return place


def in_place(tensor: Tensor, host: bool) -> Tensor:
    """The tensor, where it lies."""
    return tensor


_hints = cache(get_type_hints)


def _is_frozen(kind: Any) -> bool:
    return bool(kind.__dataclass_params__.frozen)


def _check_has_no_gradient(tensor: Tensor) -> None:
    if tensor.requires_grad:
        raise LongreachError("this cache carries gradients, which a snapshot would lose; read under torch.no_grad()")


def _alike(a: Tensor, b: Tensor) -> bool:
    return (a.shape, a.stride(), a.dtype, a.device) == (b.shape, b.stride(), b.dtype, b.device)
