"""Key norm: the tokens whose keys are shortest stay, for those get the most attention.

Paper: A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression, 2024, arXiv:2406.11430
Cost: next to none: no attention is computed again, so it goes with any kernel.   Limits: a score that asks nothing of the queries; what it
drops is gone, whatever is asked later.
Differs from the paper: no layer is left out (the paper spares the first two, where norm and attention are hardly related). Cut once, where
the prompt ends, by default; the paper's language modelling cuts whenever the cache is full: every=1.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.cache.eviction._scored import Scored
from longreach.core.bands import LayerContext
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class Knorm(Scored):
    """Args: budget: tokens that stay (>= 1), or a share of the prompt (below 1). every: 0: cut once, where the prompt ends; else whenever
    so many tokens are on top of the budget, within the prompt, too. packed: keys stand at places in the cache.
    """

    info: ClassVar = MethodInfo(
        title="A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", paper="arXiv:2406.11430", forgets=True
    )
    signals: ClassVar[tuple[Signal, ...]] = ("turned",)

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """Minus the norm, which a rotation leaves as it is."""
        assert signals.turned is not None  # noqa: S101 - asked for
        return -signals.turned.float().norm(dim=-1)

    def worth(self, seen: int, history: History) -> Tensor:
        """Minus the root of the sum of squares."""
        return -history.k.square().sum(-1).sqrt()


METHOD = Knorm
EXAMPLES = (Knorm(budget=10), Knorm(budget=0.3), Knorm(budget=9, every=4, packed=True), Knorm(budget=1, every=1))
NEUTRAL = (Knorm(budget=64),)
BAD = ({"budget": 0}, {"budget": -0.5}, {"budget": 1.5}, {"budget": 0.5, "every": 4}, {"budget": 8, "every": -1})
