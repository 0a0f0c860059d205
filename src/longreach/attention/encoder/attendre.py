"""Attendre: an encoder reads in chunks; queries wait in a memory of their own, and attend to a memory that by then holds later keys, too.

Paper: Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing, 2024,
arXiv:2401.04881
Cost: `budget` keys a query, however long the text, and no training; a layer reads the whole text before the next one does, so memory still
grows with it.
Limits: for encoders whose attention is a plain softmax of products (BERT and its kin); a causal model cannot wait. What stands more than
`delay` + `chunk` tokens ahead, or has left the memory, is seen only through what other tokens know of it; so is all of a long text by a
first token that stands for the whole. Learned positions end where they do: `grouped_positions:factor=8+attendre:...` reads on.
Differs from the paper: only its abstract could be had, and no code. The memory of keys is a FIFO as that of queries is, where the paper
also has those of `lra` and `lfa`; a query sees all of it, where the paper's retrieves keys from it. At the end of a text all that wait
attend.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.attention.base import EncoderMemory
from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Attendre(EncoderMemory):
    """Args: budget: keys that the memory holds, the last ones (>= delay + chunk, so that every query sees itself). delay: queries that
    wait, the last ones (>= 0). chunk: tokens that are read at once.
    """

    info: ClassVar = MethodInfo(
        title="Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing",
        paper="arXiv:2401.04881",
        forgets=True,
    )
    budget: int
    delay: int
    chunk: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "chunk")
        at_least(self, 0, "delay")
        if self.budget < self.delay + self.chunk:
            what = f"budget={self.budget} must be at least delay={self.delay} and chunk={self.chunk} together"
            raise SpecError(f"attendre: {what}, or the keys of queries that wait are gone")

    def steps(self, length: int) -> list[tuple[range, range]]:
        """Chunk by chunk: those that leave the memory of queries, and what that of keys holds then."""
        found, left = [], 0
        for read in [*range(self.chunk, length, self.chunk), length]:
            leave = length if read == length else max(left, read - self.delay)
            if leave > left:
                found.append((range(left, leave), range(max(0, read - self.budget), read)))
            left = leave
        return found

    def sees(self, i: Tensor, j: Tensor, length: int) -> Tensor:
        """A query attends at the end of the chunk that the token `delay` behind it is in, or at the end of the text."""
        read = (((i + self.delay) // self.chunk + 1) * self.chunk).clamp(max=length)
        return (j < read) & (j >= read - self.budget)


METHOD = Attendre
EXAMPLES = (Attendre(budget=20, delay=8, chunk=4), Attendre(budget=7, delay=0, chunk=7), Attendre(budget=16, delay=9, chunk=3))
NEUTRAL = (Attendre(budget=64, delay=50, chunk=8), Attendre(budget=64, delay=0, chunk=64))
BAD = (
    {"budget": 0, "delay": 0},
    {"budget": 64, "delay": -1},
    {"budget": 64, "delay": 8, "chunk": 0},
    {"budget": 15, "delay": 8, "chunk": 8},
)
