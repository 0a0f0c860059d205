"""Blocks of a text one behind the other, which grow at their end: on the device, in the host's memory, or in a file that is mapped."""

import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from longreach.core.errors import LongreachError
from longreach.core.memory import Storage
from longreach.engine._channels import Change

_GROWTH = 1.5
_FIRST_CAPACITY = 16


class PageBuffer:
    """Tensors with room for more blocks. Args: storage: where they lie. filled: blocks that are written; those in use never change."""

    def __init__(self, data: dict[str, Tensor], filled: int, storage: Storage) -> None:
        self.data, self.filled, self.storage = data, filled, storage
        self.users: weakref.WeakSet[Pages] = weakref.WeakSet()
        self._files: dict[str, MappedFile] = {}

    def take_back(self, blocks: int) -> bool:
        """Free all but the first `blocks`, if nobody uses more of them; whether that is so."""
        free = all(len(user) <= blocks for user in self.users)
        self.filled = blocks if free else self.filled
        return free

    @property
    def capacity(self) -> int:
        """Blocks that there is room for."""
        return next(iter(self.data.values())).shape[0]

    def reserve(self, like: Mapping[str, Tensor], blocks: int) -> None:
        """Make room for so many blocks in all. Raises: LongreachError where the disk is full."""
        if self.data and self.capacity >= blocks:
            return
        for name, tensor in like.items():
            shape = (max(_FIRST_CAPACITY, int(blocks * _GROWTH)), *tensor.shape[1:])
            if name in self._files:
                self.data[name] = self._files[name].tensor(shape)  # what is written stays where it is
                continue
            old, self.data[name] = self.data.get(name), self._empty(name, shape, tensor)
            if old is not None:
                self.data[name][: self.filled] = old[: self.filled]

    def write(self, new: Mapping[str, Tensor]) -> None:
        """Add blocks [n, ...] behind those that are written."""
        count = len(next(iter(new.values())))
        for name, tensor in new.items():
            self.data[name][self.filled : self.filled + count] = tensor
        self.filled += count
        for file in self._files.values():
            file.let_go()

    def _empty(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        if self.storage == "disk":
            self._files[name] = MappedFile(like.dtype)
            return self._files[name].tensor(shape)
        device = torch.device("cpu") if self.storage == "host" else like.device
        pinned = self.storage == "host" and like.device.type == "cuda"  # what a GPU reads best
        return torch.empty(shape, dtype=like.dtype, device=device, pin_memory=pinned)


class MappedFile:
    """A temporary file without a name, mapped into memory: it is gone with the process, however that ends."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self._file = dtype, tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its tensors are needed
        self._map: mmap.mmap | None = None

    def tensor(self, shape: tuple[int, ...]) -> Tensor:
        """What is in the file, as a tensor of this shape; its beginning is what it was.

        Raises: LongreachError where the disk is full. Space is claimed beforehand, for writing to a mapped file on a full disk kills.
        """
        size = max(1, prod(shape)) * self.dtype.itemsize
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
            else:
                self._file.truncate(size)
        except OSError as error:
            what = f"{size:,} bytes of a cache to {tempfile.gettempdir()}"
            raise LongreachError(f"cannot write {what} ({error.strerror}); set TMPDIR to a folder with room") from error
        self._map = mmap.mmap(self._file.fileno(), size)
        return torch.frombuffer(self._map, dtype=self.dtype, count=prod(shape)).view(shape)

    def let_go(self) -> None:
        """Take its pages out of the process's memory; they stay in the system's cache and on the disk, and come back when they are read."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Pages:
    """The first `count` blocks of a buffer. A value: `appended` makes another, which shares the buffer unless others wrote there."""

    def __init__(self, buffer: PageBuffer, count: int) -> None:
        self.buffer, self.count = buffer, count
        buffer.users.add(self)

    def __len__(self) -> int:
        return self.count

    @classmethod
    def empty(cls, storage: Storage) -> "Pages":
        """None yet."""
        return cls(PageBuffer({}, 0, storage), 0)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], storage: Storage) -> "Pages":
        """Blocks that are these tensors [n, ...], without a copy."""
        count = len(next(iter(tensors.values()), ()))
        return cls(PageBuffer(dict(tensors), count, storage), count)

    def __getitem__(self, name: str) -> Tensor:
        """Its blocks, [count, ...]."""
        return self.buffer.data[name][: self.count]

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """Name and blocks of each."""
        for name in self.buffer.data:
            yield name, self[name]

    def appended(self, new: Mapping[str, Tensor]) -> "Pages":
        """With these blocks [n, ...] behind."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*new.values(), *self.buffer.data.values())):
            joined = {name: torch.cat([self[name], tensor]) if self.count else tensor for name, tensor in new.items()}
            return Pages.of(joined, self.buffer.storage)
        buffer, count = self.buffer, self.count + len(next(iter(new.values())))
        if buffer.filled != self.count and not buffer.take_back(self.count):  # others went on from here
            buffer = PageBuffer(dict(self.items()), self.count, buffer.storage)
        buffer.reserve(new, count)
        buffer.write(new)
        return Pages(buffer, count)

    def changed(self, change: Change) -> "Pages":
        """With the change of the batch's rows, which are the blocks' first dimension."""
        return Pages.of({name: change(tensor.transpose(0, 1)).transpose(0, 1) for name, tensor in self.items()}, self.buffer.storage)
