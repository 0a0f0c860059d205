"""PrFlashAttention: which blocks of far keys a block of queries sees is drawn, the nearer ones with the greater probability.

Paper: The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI, 2024, arXiv:2410.18441
Cost: a query sees near * (1 + ln(blocks / near)) blocks of keys, with exponent=1; the cache of the whole text.   Limits: the window of the
model is unchanged; it saves time, not memory. What is seen does not hang on the text: with few layers, much of it nobody sees.
Differs from the paper: only its abstract could be had, and no code. The probability falls with a power of the distance in blocks. What was
drawn holds for all heads of a layer, each layer has a draw of its own, and the same seed draws the same. The text's first blocks are always
seen, without which models as they are do not read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.attention.sparse._rows import at_once, chosen_rows
from longreach.core.bands import Band, Computed, LayerContext, QueryRun
from longreach.core.errors import SpecError
from longreach.core.memory import View
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class ProbabilisticBlocks(Places):
    """Args: block_size: tokens of a block. near: blocks before a query's own that it always sees (>= 1). exponent: a block d blocks away is
    seen with the probability (near / d) ** exponent (> 0). num_sinks: first blocks that are always seen. seed: of what is drawn.
    """

    info: ClassVar = MethodInfo(
        title="The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI", paper="arXiv:2410.18441"
    )
    block_size: int = 64
    near: int = 4
    exponent: float = 1.0
    num_sinks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "block_size", "near")
        at_least(self, 0, "num_sinks", "seed")
        if self.exponent <= 0:
            raise SpecError(f"probabilistic_blocks: exponent={self.exponent:g} must be above 0")

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The near blocks, and what is drawn of the others."""
        return (Band(chunk=self.block_size, hi=self.near), Computed(_Draw(self, layer.full_layers.index(layer.layer_idx))))

    def drawn(self, layer: int, block: int) -> Tensor:
        """Which of the blocks before the near ones the queries of a block see, ascending."""
        far = torch.arange(max(0, block - self.near))
        chance = (self.near / (block - far).double()) ** self.exponent
        generator = torch.Generator().manual_seed((self.seed * 1009 + layer) * 1_000_003 + block)
        draws = torch.rand(len(far), generator=generator, dtype=torch.float64)
        return far[(draws < chance) | (far < self.num_sinks)]

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """Block by block."""
        layer, padding = vectors.layer.full_layers.index(vectors.layer.layer_idx), int((j < 0).sum())
        visible = ((j <= i) & (j >= 0)).clone()
        for query in range(padding, j.shape[-1]):
            block = (query - padding) // self.block_size
            seen = {*self.drawn(layer, block).tolist(), *range(max(0, block - self.near), block + 1)}
            for key in range(padding, query + 1):
                visible[query, key] = (key - padding) // self.block_size in seen
        return i - j, visible


@dataclass(frozen=True)
class _Draw:
    """That of a layer."""

    policy: ProbabilisticBlocks
    layer: int

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Block by block of the queries."""
        size, first, end = self.policy.block_size, run.first, run.first + run.q.shape[2]
        keys, values = (x[:, :, : end // size * size].unflatten(2, (-1, size)) for x in (run.keys, run.values))
        for block in range(first // size, -(-end // size)):
            chosen = self.policy.drawn(self.layer, block).to(run.q.device)
            rows = slice(max(first, block * size) - first, min(end, (block + 1) * size) - first)
            # All heads see the same: a copy for each key-value head will do.
            for some in chosen.split(at_once(keys.shape[0] * keys.shape[1] * size * keys.shape[4])):
                index = some.expand(*keys.shape[:2], 1, -1)
                near, given = (chosen_rows(x, index)[:, :, 0].flatten(2, 3) for x in (keys, values))
                yield (rows, *run.attend(run.q[:, :, rows], near, given, None))


METHOD = ProbabilisticBlocks
EXAMPLES = (
    ProbabilisticBlocks(block_size=3, near=2),
    ProbabilisticBlocks(block_size=5, near=1, exponent=2.0, num_sinks=0, seed=3),
    ProbabilisticBlocks(block_size=1, near=6, exponent=0.5, num_sinks=2),
)
NEUTRAL = (ProbabilisticBlocks(block_size=16, near=4), ProbabilisticBlocks(block_size=4, near=1, num_sinks=16))
BAD = ({"block_size": 0}, {"near": 0}, {"exponent": 0.0}, {"num_sinks": -1}, {"seed": -1})
