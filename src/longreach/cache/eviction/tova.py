"""TOVA: whenever the cache is full, the tokens to which the last query paid the least attention go.

Paper: Transformers are Multi-State RNNs, 2024, arXiv:2401.06104
Cost: the last query's attention is computed once more.   Limits: what the last query does not need is gone; at its own positions it
reaches no further than the model, packed it does.
Differs from the paper: `slack` tokens go at once, where the paper drops one with every token (slack=1: a prompt is then read token by
token, many times slower); a prompt is read under the budget, too, where the official code drops what a prompt has too much at its end.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import Over
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class Tova(Eviction):
    """Args: budget: tokens that stay (>= 1). slack: tokens that may come on top before some have to go. packed: keys stand at places in
    the cache, so that it reads on beyond the window.
    """

    info: ClassVar = MethodInfo(title="Transformers are Multi-State RNNs", paper="arXiv:2401.06104", bounded_memory=True, forgets=True)
    signals: ClassVar[tuple[Signal, ...]] = ("observed",)
    by_head: ClassVar[bool] = False
    budget: int
    slack: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "slack")

    def cut(self, layer: LayerContext) -> Over:
        """Whenever the slack is used up."""
        return Over(self.budget, self.slack)

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
EXAMPLES = (Tova(budget=12, slack=4), Tova(budget=1, slack=1), Tova(budget=9, slack=3, packed=True))
NEUTRAL = (Tova(budget=64),)
BAD = ({"budget": 0}, {"budget": 8, "slack": 0})
