"""What the memories of Attendre share: so many tokens stay, and as many as a chunk has may come on top before some have to go."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import Over
from longreach.core.memory import Kept, Signal
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import coarse
from longreach.core.sight import History

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

    def cut(self, layer: LayerContext) -> Over:
        """Whenever the slack is used up."""
        return Over(self.budget, self.slack)


@dataclass(frozen=True, kw_only=True)
class AttendedMemory(Memory):
    """top_k: keys of a query that count as attended to (>= 1; default: what did best on `nano`)."""

    signals: ClassVar[tuple[Signal, ...]] = ("attended",)
    top_k: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "top_k")

    def kept(self, layer: LayerContext) -> Kept:
        """The store of what is kept, which notes who attends to it."""
        return replace(super().kept(layer), top=self.top_k)

    def attended(self, seen: int, history: History) -> Tensor:
        """The definition: which of the queries before `seen` attended to which tokens, [K, G, seen, T] bool, head by head."""
        weights = coarse(history.attention[:, :seen])
        heads, queries, tokens = weights.shape
        found = torch.zeros_like(weights, dtype=torch.bool)
        for query in range(queries):
            mine = weights[:, query, : query + 1]
            ranked = mine.sort(dim=-1, descending=True).values
            found[:, query, : query + 1] = mine >= ranked[:, min(self.top_k, query + 1) - 1, None]
        return found.view(len(history.k), heads // len(history.k), queries, tokens)
