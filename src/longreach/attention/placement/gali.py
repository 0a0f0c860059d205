"""GALI: as few tokens as possible share the trained positions, the first ones, and their logits are interpolated between whole positions.

Paper: A Training-Free Length Extrapolation Approach for LLMs: Greedy Attention Logit Interpolation (GALI), 2025, arXiv:2502.02659
Cost: two attention bands a layer; three copies of the keys, one of which is made anew each time that the text has outgrown a group size.
Limits: any length, within window_size trained positions; far tokens stand as dense as the text is long.
Differs from the paper: leaves out the random noise on interpolated logits, so that the same text gives the same logits; the last chunk of
queries is placed as if it were full, so that prefill, in chunks of any size, and decoding agree.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import FollowsLength
from longreach.core.bands import FULL, Band, Blended, LayerContext, PositionMap
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, slots=True)
class _Query(PositionMap):
    """max(ceil(t / group), t + shift): the position of a query among `group` tokens a position, or among the last tokens, one each."""

    group: int
    shift: int

    def __call__(self, t: Tensor) -> Tensor:
        """Positions of the indices `t`."""
        return torch.maximum(-(-t // self.group), t + self.shift)


@dataclass(frozen=True, kw_only=True)
class Gali(FollowsLength):
    """Args: window_size: positions in use (at most the trained window). local_window: last tokens that keep positions of their own, at
    the least. chunk_size: queries that are placed together (paper: 1 in decoding, about 1000 and more in prefill).
    """

    info: ClassVar = MethodInfo(
        title="A Training-Free Length Extrapolation Approach for LLMs: Greedy Attention Logit Interpolation (GALI)",
        paper="arXiv:2502.02659",
        changes_positions=True,
        length_dependent=True,
        claims=(Claim(text="perplexity on PG-19 stays stable from 4k to 32k tokens (Llama-3, window of 8k)", metric="rise", at_most=0.05),),
    )
    interpolates_logits: ClassVar[bool] = True
    window_size: int
    local_window: int
    chunk_size: int = 128

    def __post_init__(self) -> None:
        at_least(self, 1, "local_window", "chunk_size")
        at_least(self, 2, "window_size")
        if self.local_window >= self.window_size:
            raise SpecError(f"{self.name()}: local_window={self.local_window} must be below window_size={self.window_size}")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Gali", ...]:
        """The whole window, with a quarter of it for the last tokens; and three quarters of it, for it found smaller ranges better."""
        whole, less = max(2, trained_window), max(2, trained_window * 3 // 4)
        chunk = max(1, trained_window // 8)
        return tuple(cls(window_size=size, local_window=max(1, size // 4), chunk_size=chunk) for size in (whole, less))

    def _layout(self, length: int) -> tuple[int, int]:
        """(tokens that share a position, how many tokens do so) in a text of `length` tokens, more than the window."""
        group = -(-(length - self.local_window) // (self.window_size - self.local_window))
        groups = -(-(length - self.window_size) // (group - 1))
        return group, length - self.window_size + groups

    def text_length(self, t: Tensor, layer: LayerContext) -> Tensor:
        """The window, and beyond it the end of the query's chunk."""
        return self._lengths(t)

    def _lengths(self, t: Tensor) -> Tensor:
        return self.window_size + (-(-(t + 1 - self.window_size) // self.chunk_size)).clamp(min=0) * self.chunk_size

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Inside the window: all at their own positions."""
        return FULL

    def bands_at(self, layer: LayerContext, length: int) -> tuple[Band, ...]:
        """The last tokens at positions of their own, and those before them, interpolated."""
        if length <= self.window_size:
            return FULL
        group, shared = self._layout(length)
        query = _Query(group=group, shift=self.window_size - length)
        return (Band(after=shared), Band(queries=query, keys=Blended(group), before=shared))

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The greedy placement, for every query by itself: ceil(position of the query) - position of the key."""
        i, j = torch.broadcast_tensors(i, j)
        relative = (i - j).double()
        lengths = self._lengths(i)
        for length in lengths[lengths > self.window_size].unique().tolist():
            group, shared = self._layout(length)
            query, key = (torch.where(x < shared, x.double() / group, x.double() + self.window_size - length) for x in (i, j))
            relative = torch.where(lengths == length, query.ceil() - key, relative)
        return relative, j <= i


METHOD = Gali
EXAMPLES = (
    Gali(window_size=32, local_window=8, chunk_size=4),
    Gali(window_size=20, local_window=4, chunk_size=1),
    Gali(window_size=16, local_window=2, chunk_size=24),
)
NEUTRAL = (Gali(window_size=128, local_window=8), Gali(window_size=64, local_window=63, chunk_size=3))
BAD = (
    {"window_size": 1, "local_window": 1},
    {"window_size": 16, "local_window": 0},
    {"window_size": 16, "local_window": 16},
    {"window_size": 16, "local_window": 4, "chunk_size": 0},
)
