"""The header of a GGUF file, read without a library: what the file says, and whether all of it is there.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import math
import mmap
import re
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longreach.core.errors import CheckpointError, InputError

MAGIC = b"GGUF"
_VERSIONS = (2, 3)  # the first counted in 32 bits, and no file of it is left
_FIXED = 24  # bytes before the metadata
_ALIGNMENT = 32
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_SHORT = 1024  # numbers of an array that are kept; longer ones belong to the tokenizer
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True, kw_only=True)
class GGUFTensor:
    """Args: shape: the fastest dimension first. kind: number of a ggml type. offset, size: bytes in the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class GGUFHeader:
    """Args: values: the metadata; of arrays of strings and long arrays of numbers, their length. tensors: by name."""

    path: Path
    values: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @property
    def architecture(self) -> str:
        """As llama.cpp calls it."""
        return str(self.values["general.architecture"])

    def get(self, key: str) -> Any:
        """A value of the architecture's own, None where there is none. Args: key: `context_length`, `rope.freq_base`."""
        return self.values.get(f"{self.architecture}.{key}")


def check_gguf(file: Path, label: str) -> GGUFHeader:
    """The header of a GGUF file that can be loaded as a model.

    Raises: CheckpointError for what is no GGUF file, is not whole, is one of several parts, or lacks a tokenizer; InputError where the
    package that reads tensors is missing.
    """
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            if file.suffix == ".gguf":
                raise CheckpointError(f"{label} is not a GGUF file: it does not begin with GGUF; fetch it again")
            raise CheckpointError(f"{label} is a file; give the folder of the checkpoint, or a GGUF file")
    _check_package(label)
    header = read_header(file, label)
    part, count = _part(header)
    if count > 1:
        merge = "llama.cpp's llama-gguf-split --merge makes one file of them"
        raise CheckpointError(f"{label} is part {part} of {count}, and GGUF files in parts are not read; {merge}")
    if not header.values.get("tokenizer.ggml.tokens"):
        raise CheckpointError(f"{label} has no tokenizer; give the folder of the original checkpoint")
    return header


def read_header(file: Path, label: str) -> GGUFHeader:
    """The header of a GGUF file of which every byte is there. Raises: CheckpointError."""
    size = file.stat().st_size
    if size < _FIXED:
        raise CheckpointError(f"{label} is truncated: it ends inside its header; fetch it again")
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        version, tensor_count, value_count = struct.unpack_from("<IQQ", whole, len(MAGIC))
        if version not in _VERSIONS:
            known = " and ".join(map(str, _VERSIONS))
            raise CheckpointError(f"{label} has version {version} of the GGUF format, and versions {known} are read; convert it anew")
        try:
            reader = _Bytes(whole)
            values = {reader.string(): reader.value() for _ in range(value_count)}
            rows = [reader.tensor() for _ in range(tensor_count)]
        except (struct.error, EOFError):
            raise CheckpointError(f"{label} is truncated: it ends inside its header; fetch it again") from None
        except (UnicodeDecodeError, KeyError, RecursionError):
            raise CheckpointError(f"{label} is corrupt: its GGUF header cannot be read") from None
    if not values.get("general.architecture"):
        raise CheckpointError(f"{label} does not say its architecture (general.architecture); it is not a model")
    alignment = values.get("general.alignment") or _ALIGNMENT
    start = -(-reader.place // alignment) * alignment
    tensors = {name: _tensor(label, name, shape, kind, start + offset) for name, shape, kind, offset in rows}
    end = max((each.offset + each.size for each in tensors.values()), default=start)
    if size < end:
        raise CheckpointError(f"{label} is truncated: it has {size} bytes and its header says {end}; fetch it again")
    return GGUFHeader(path=file, values=values, tensors=tensors)


def _check_package(label: str) -> None:
    if find_spec("gguf") is None:
        raise InputError(f"{label} is a GGUF file, and reading one needs the package gguf; pip install 'longreach[gguf]'")


def _tensor(label: str, name: str, shape: tuple[int, ...], kind: int, offset: int) -> GGUFTensor:
    from gguf.constants import GGML_QUANT_SIZES

    sizes = {int(each): size for each, size in GGML_QUANT_SIZES.items()}
    if kind not in sizes:
        raise CheckpointError(f"{label} holds tensors of type {kind}, which the installed gguf does not know; pip install -U gguf")
    block, size = sizes[kind]
    return GGUFTensor(name=name, shape=shape, kind=kind, offset=offset, size=math.prod(shape) // block * size)


def _part(header: GGUFHeader) -> tuple[int, int]:
    """Which of how many files it is."""
    if (count := header.values.get("split.count") or 1) > 1:
        return int(header.values.get("split.no") or 0) + 1, int(count)
    named = _PART.search(header.path.name)
    return (1, 1) if named is None else (int(named[1]), int(named[2]))


class _Bytes:
    """Reads values one after the other, in the bytes of a whole file."""

    def __init__(self, whole: mmap.mmap) -> None:
        self.whole, self.place = whole, _FIXED

    def numbers(self, form: str, count: int = 1) -> tuple[Any, ...]:
        """Numbers in a row."""
        found = struct.unpack_from(f"<{count}{form}", self.whole, self.place)
        self.skip(count * struct.calcsize(f"<{form}"))
        return found

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        self.place += size
        if self.place > len(self.whole):
            raise EOFError

    def string(self) -> str:
        """A text in UTF-8."""
        start = self.place + 8
        self.skip(8 + self.numbers_ahead())
        return self.whole[start : self.place].decode("utf-8")

    def numbers_ahead(self) -> int:
        """The length that stands before a text."""
        return int(struct.unpack_from("<Q", self.whole, self.place)[0])

    def value(self) -> Any:
        """A value behind the number of its type."""
        (kind,) = self.numbers("I")
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.numbers(_NUMBERS[kind])[0]
        inner, count = (self.numbers(form)[0] for form in "IQ")
        if inner == _STRING:
            for _ in range(count):
                self.skip(8 + self.numbers_ahead())
            return count
        form = _NUMBERS[inner]
        if count <= _SHORT:
            return self.numbers(form, count)
        self.skip(count * struct.calcsize(f"<{form}"))
        return count

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset of a tensor."""
        name = self.string()
        (dimensions,) = self.numbers("I")
        shape = self.numbers("Q", dimensions)
        (kind,), (offset,) = self.numbers("I"), self.numbers("Q")
        return name, shape, kind, offset
