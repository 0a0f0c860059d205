"""Ada-KV: the heads of a layer share its budget, and those whose attention is spread out get more of it.

Paper: Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference, 2024, arXiv:2407.11550
Cost: buffers are as wide as the head that keeps most.   Limits: stands behind a policy that keeps other tokens in each head (the paper's:
snapkv:budget=...+ada), whose keys are not packed.
Differs from the paper: heads are key-value heads, as in the official code's mode for grouped queries. A head's count is rounded down, so
that a layer never keeps more than its budget, and up to one token less for each head; the code rounds to the nearest. Scores are not
normalised, and no layer is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf
from typing import ClassVar

from torch import Tensor

from longreach.cache.base import BudgetWrapper, Eviction
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import highest


@dataclass(frozen=True, kw_only=True)
class Ada(BudgetWrapper):
    """Args: floor: the part of its equal share that each head has for sure (0 to 1; official code: 0.2; 1: all heads alike)."""

    info: ClassVar = MethodInfo(
        title="Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation for Efficient LLM Inference", paper="arXiv:2407.11550"
    )
    floor: float = 0.2

    def __post_init__(self) -> None:
        at_least(self, 0, "floor")
        if self.floor > 1:
            raise SpecError(f"ada: floor={self.floor:g} must be at most 1: it is a part of each head's equal share")

    def refusal(self, inner: Eviction) -> str | None:
        """Where heads have one score, there is nothing to divide by."""
        return super().refusal(inner) or (None if inner.by_head else "all its heads keep the same tokens")

    def counts(self, inner: Eviction, score: Tensor, index: Tensor, layer: LayerContext) -> Tensor:
        """Each head: what stays in any case, the floor, and of the rest as it has of the highest scores of all heads."""
        there, (rows, heads, tokens) = index >= 0, index.shape
        stay = score.isposinf() & there
        free = (inner.tokens(layer) - stay.sum(2)).clamp(min=0)
        rest = index.masked_fill(stay, -1)
        best = highest(score.reshape(rows, -1), rest.reshape(rows, -1), free.sum(1)).view(rows, heads, tokens).sum(2)
        floor = (free.double() * self.floor).long()
        return stay.sum(2) + floor + (free - floor) * best // free.clamp(min=1)

    def shares(self, inner: Eviction, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """One head and token after the other."""
        stay = [sum(isinf(value) for value in values.values()) for values in worth]
        free = [max(0, inner.tokens(layer) - count) for count in stay]
        ranked = sorted((-value, -token, head) for head, values in enumerate(worth) for token, value in values.items() if not isinf(value))
        best = [head for _, _, head in ranked[: sum(free)]]
        floor = [int(count * self.floor) for count in free]
        return [
            kept + sure + (count - sure) * best.count(head) // max(1, count)
            for head, (kept, sure, count) in enumerate(zip(stay, floor, free, strict=True))
        ]


METHOD = Ada
EXAMPLES = (Ada(), Ada(floor=0.5))
STACKS = (
    "snapkv:budget=10,window_size=3,kernel_size=3+ada",
    "h2o:budget=12,recent=4,slack=3+ada:floor=0.5",
)
NEUTRAL = ()
BAD = ({"floor": -0.1}, {"floor": 1.1})
