"""PyramidKV: lower layers keep more of the budget and higher ones less, for attention narrows from layer to layer.

Paper: PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling, 2024, arXiv:2406.02069
Cost: none.   Limits: stands behind a policy with a budget (the paper's: snapkv:budget=...+pyramid), whose keys are not packed.
Differs from the paper: what a prompt shorter than the budgets of lower layers leaves unused is not given to higher ones, as the official
code does, which also keeps the same in all layers of a prompt shorter than twice the budget. Layers with a sliding window of their own are
not counted. The total is the same to the token; the official code rounds its least budget and its steps down.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from longreach.cache.base import BudgetWrapper, Eviction
from longreach.core.bands import LayerContext
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Pyramid(BudgetWrapper):
    """Args: beta: the last layer has so small a part of the mean, beside what stays in any case (>= 1; paper: 20; 1: all alike)."""

    info: ClassVar = MethodInfo(
        title="PyramidKV: Dynamic KV Cache Compression based on Pyramidal Information Funneling", paper="arXiv:2406.02069"
    )
    beta: int = 20

    def __post_init__(self) -> None:
        at_least(self, 1, "beta")

    def of_layer(self, inner: Eviction, layer: LayerContext) -> Eviction:
        """An arithmetic sequence from 2 - 1 / beta to 1 / beta of the mean; Python rounds halves to even, and so keeps the sum."""
        last = len(layer.full_layers) - 1
        if not last:
            return inner
        mean = inner.tokens(layer) - inner.least
        low = Fraction(mean, self.beta)
        high = 2 * mean - low
        return inner.with_budget(inner.least + round(high - (high - low) * layer.full_layers.index(layer.layer_idx) / last))


METHOD = Pyramid
EXAMPLES = (Pyramid(), Pyramid(beta=4))
STACKS = (
    "snapkv:budget=10,window_size=3,kernel_size=3+pyramid",
    "h2o:budget=10,slack=4+pyramid:beta=4",
)
NEUTRAL = ()
BAD = ({"beta": 0},)
