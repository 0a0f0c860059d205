"""Chunked attention: exact, with memory that grows with the length of a text and not with its square, forwards and backwards.

Paper: Self-attention Does Not Need O(n^2) Memory, 2021, arXiv:2112.05682
Cost: less time than plain attention takes without a fused kernel (benchmarks/chunked.py); backwards, logits are computed again.
Limits: it makes room, not speed: where transformers has a fused kernel for a model (sdpa), that is as small and faster. It is for models
that run `eager` attention, as those with soft caps or sinks do on a CPU. Dropout of attention and attention weights as output are refused.
Differs from the paper: keys are cut into chunks of a fixed size, not of the square root of their number; gradients are computed by a rule
of their own from saved sums, not by checkpoints; pairs of chunks in which nobody sees anybody are left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.attention.base import Chunks
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Chunked(Chunks):
    """Args: query_chunk, key_chunk: queries and keys that meet at a time (tokens, >= 1)."""

    info: ClassVar = MethodInfo(title="Self-attention Does Not Need O(n^2) Memory", paper="arXiv:2112.05682")
    query_chunk: int = 512
    key_chunk: int = 1024

    def __post_init__(self) -> None:
        at_least(self, 1, "query_chunk", "key_chunk")

    def sizes(self) -> tuple[int, int]:
        """The settings."""
        return self.query_chunk, self.key_chunk


METHOD = Chunked
EXAMPLES = (Chunked(query_chunk=16, key_chunk=23), Chunked(), Chunked(query_chunk=3, key_chunk=40))
NEUTRAL = (Chunked(),)
BAD = ({"query_chunk": 0}, {"key_chunk": 0})
