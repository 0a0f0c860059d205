"""TOVA: whenever the cache is full, the token to which the last query paid the least attention goes.

Paper: Transformers are Multi-State RNNs, 2024, arXiv:2401.06104
Cost: the last query's attention is computed once more.   Limits: what the last query does not need is gone; at its own positions it
reaches no further than the model, packed it does.
Differs from the paper: a prompt is read under the budget, too, where the official code drops what a prompt has too much at its end.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class Tova(Eviction):
    """Args: budget: tokens that stay (>= 1). packed: keys stand at places in the cache, so that it reads on beyond the window."""

    info: ClassVar = MethodInfo(title="Transformers are Multi-State RNNs", paper="arXiv:2401.06104", bounded_memory=True, forgets=True)
    signals: ClassVar[tuple[Signal, ...]] = ("observed",)
    by_head: ClassVar[bool] = False
    budget: int

    def __post_init__(self) -> None:
        at_least(self, 1, "budget")

    @property
    def observe(self) -> int:
        """The last query."""
        return 1

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The attention of the last query, over all heads."""
        assert signals.observed is not None  # noqa: S101 - asked for
        return signals.observed.sum(1, keepdim=True).expand_as(signals.observed)

    def worth(self, seen: int, history: History) -> Tensor:
        """The weights of the query before, over all heads."""
        return history.attention[:, seen - 1].sum(0).expand(len(history.k), -1)


METHOD = Tova
EXAMPLES = (Tova(budget=12), Tova(budget=1), Tova(budget=9, packed=True))
NEUTRAL = (Tova(budget=64),)
BAD = ({"budget": 0},)
