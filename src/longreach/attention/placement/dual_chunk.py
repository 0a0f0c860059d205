"""Dual chunk attention: true distances inside a chunk and over its near edge, farther chunks all at one distance inside the window.

Paper: Training-Free Long-Context Scaling of Large Language Models, 2024, arXiv:2402.17463
Cost: three attention bands a layer, on one rotated copy of the keys; no training.
Limits: any length, within chunk_size + local_window trained positions; chunks before the last have the order of tokens inside them only.
Differs from the paper: nothing. The text has chunks of 3/4 of the window and a local window of 1/4, the authors' code 5/8 and 1/8. Beyond
the trained window the code also multiplies cos and sin by 0.05 ln(length / window) + 1, and says that the paper's results are without.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places
from longreach.core.bands import Band, Constant, LayerContext, Within
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class DualChunk(Places):
    """Args: chunk_size: tokens a chunk (paper: 3/4 of the trained window). local_window: distances that stay true across a chunk's edge
    (tokens; paper: the rest of the window); at most chunk_size.
    """

    info: ClassVar = MethodInfo(
        title="Training-Free Long-Context Scaling of Large Language Models",
        paper="arXiv:2402.17463",
        changes_positions=True,
        claims=(
            Claim(text="Llama-2 keeps its perplexity to 100k tokens and more", metric="rise", at_most=0.05),
            Claim(text="passkeys are found at 8 times the window", metric="retrieval", at_least=0.85),
        ),
    )
    chunk_size: int
    local_window: int

    def __post_init__(self) -> None:
        at_least(self, 2, "chunk_size")
        at_least(self, 1, "local_window")
        if self.local_window > self.chunk_size:
            raise SpecError(f"{self.name()}: local_window={self.local_window} must be at most chunk_size={self.chunk_size}")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["DualChunk", ...]:
        """Chunk and local window of the paper, and those of its authors' code, which keep off the largest trained distances."""
        paper, code = max(2, trained_window * 3 // 4), max(2, trained_window * 5 // 8)
        return (
            cls(chunk_size=paper, local_window=max(1, trained_window - paper)),
            cls(chunk_size=code, local_window=trained_window // 8 + 1),
        )

    @property
    def ceiling(self) -> int:
        """The position of queries that look far: the last of the window."""
        return self.chunk_size + self.local_window - 1

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Intra-chunk, successive-chunk and inter-chunk attention; keys always stand at their place in the chunk."""
        size = self.chunk_size
        keys = Within(size)
        return (
            Band(chunk=size, hi=0, queries=keys, keys=keys),
            Band(chunk=size, lo=1, hi=1, queries=Within(size, size, self.ceiling), keys=keys),
            Band(chunk=size, lo=2, queries=Constant(self.ceiling), keys=keys),
        )

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The paper's three: inside a chunk, to the chunk before, and to all before that."""
        size = self.chunk_size
        chunks = i // size - j // size
        succ = (i % size + size).clamp(max=self.ceiling)
        query = torch.where(chunks == 0, i % size, torch.where(chunks == 1, succ, self.ceiling))
        return query - j % size, j <= i


METHOD = DualChunk
EXAMPLES = (DualChunk(chunk_size=12, local_window=4), DualChunk(chunk_size=7, local_window=7), DualChunk(chunk_size=5, local_window=1))
NEUTRAL = (DualChunk(chunk_size=64, local_window=16),)
BAD = (
    {"chunk_size": 1, "local_window": 1},
    {"chunk_size": 8, "local_window": 0},
    {"chunk_size": 8, "local_window": 9},
)
