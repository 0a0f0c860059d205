"""What the memories of Attendre share: so many tokens stay, and as many as a chunk has may come on top before some have to go."""

from dataclasses import dataclass
from typing import ClassVar, Self

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.memory import Over
from longreach.core.method import MethodInfo, at_least

INFO = MethodInfo(
    title="Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing",
    paper="arXiv:2401.04881",
    bounded_memory=True,
    forgets=True,
)


@dataclass(frozen=True, kw_only=True)
class Memory(Eviction):
    """budget: tokens that stay (>= 1). slack: tokens that may come on top before some have to go; the paper's chunk."""

    info: ClassVar = INFO
    budget: int
    slack: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "slack")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple[Self, ...]:
        """A window that is never left: the budget and its slack fill it."""
        slack = max(1, trained_window // 8)
        return (cls(budget=max(1, trained_window - slack), slack=slack, packed=True),)

    def cut(self, layer: LayerContext) -> Over:
        """Whenever the slack is used up."""
        return Over(self.budget, self.slack)
