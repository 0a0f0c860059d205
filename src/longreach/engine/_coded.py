"""Chunks of tokens in fewer and fewer bits as they grow older."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from longreach.core.bands import TRUE
from longreach.core.memory import Codec, Coded
from longreach.engine._channels import Change, Channels
from longreach.engine._cuts import CutStore, Part, State, StoreRow
from longreach.engine._fused import attend

_AT_ONCE = 16  # chunks that are decoded together: bounds the memory of what is decoded

Code = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The codes of a chunk's keys, rotated, and of its values."""

    keys: Code
    values: Code


@dataclass(frozen=True, kw_only=True)
class CodedState(State):
    """steps: the chunks of each step, oldest first."""

    steps: tuple[tuple[Chunk, ...], ...]


class CodedStore(CutStore[Coded, CodedState]):
    """Chunks by age, each step with its codec."""

    def empty(self, like: dict[object, Tensor], start: int) -> CodedState:
        """Nothing."""
        return CodedState(upto=start, steps=((),) * len(self.view.steps))

    def taken(self, row: StoreRow[CodedState], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> CodedState:
        """With the chunks that are no longer among the exact ones, and older ones a step further where a step is full."""
        state, size = row.state, self.view.chunk
        while state.upto + (self.view.exact + 1) * size <= slot:
            part = slice(state.upto - oldest, state.upto - oldest + size)
            k, v = window.view(TRUE)[:, :, part], window.view("v")[:, :, part]
            state = CodedState(upto=state.upto + size, steps=self._pushed(state.steps, k, v))
        return state

    def _pushed(self, steps: tuple[tuple[Chunk, ...], ...], k: Tensor, v: Tensor) -> tuple[tuple[Chunk, ...], ...]:
        after: list[tuple[Chunk, ...]] = []
        coming: tuple[Tensor, Tensor] | None = (k, v)
        for chunks, (most, codec) in zip(steps, self.view.steps, strict=True):
            if coming is None:
                after.append(chunks)
                continue
            chunks = (*chunks, Chunk(codec.encode(coming[0], "keys"), codec.encode(coming[1], "values")))
            coming = None
            if most is not None and len(chunks) > most:
                oldest, chunks = chunks[0], chunks[1:]
                coming = codec.decode(oldest.keys, "keys"), codec.decode(oldest.values, "values")
            after.append(chunks)
        return tuple(after)

    def pieces(self, state: CodedState, q: Tensor, turned: Any) -> Iterator[Part]:
        """All chunks, some at a time."""
        for chunks, (_, codec) in zip(state.steps, self.view.steps, strict=True):
            for first in range(0, len(chunks), _AT_ONCE):
                some = chunks[first : first + _AT_ONCE]
                k, v = (decoded(codec, [getattr(chunk, side) for chunk in some], side).to(q.dtype) for side in ("keys", "values"))
                yield (slice(0, q.shape[2]), *attend(q, k, v, scale=self.scale, softcap=self.softcap))

    def changed(self, state: CodedState, change: Change) -> CodedState:
        """Every code changed."""

        def changed(code: Code) -> Code:
            return {name: change(tensor) for name, tensor in code.items()}

        return replace(state, steps=tuple(tuple(Chunk(changed(c.keys), changed(c.values)) for c in chunks) for chunks in state.steps))


def decoded(codec: Codec, codes: list[Code], side: Literal["keys", "values"]) -> Tensor:
    """The keys or values of several chunks one after the other, [B, K, n C, D]."""
    joined = {name: torch.stack([code[name] for code in codes], 2) for name in codes[0]}
    return codec.decode(joined, side).flatten(2, 3)
