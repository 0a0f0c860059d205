"""LFA: beside the last tokens stay those that most queries attended to: had among the `top_k` keys that they weighted most.

Paper: Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing, 2024,
arXiv:2401.04881
Cost: attention weights are computed twice more, to find which keys are among the first of a query, and to note it there.
Limits: what was often needed stays long after it was; at its own positions it reaches no further than the model, packed it does.
Differs from the paper: only its abstract could be had, and no code. A query attends to all of the memory, where the paper's queries
retrieve keys from it; the `top_k` keys that got the most attention of a query of a head stand for what it would have retrieved, and how
many that is in the paper is not known here. Times are counted since the token came, not per token of its age, over all heads that share its
keys. `recent` is ours: without it (recent=0) what came last was attended to least, and goes before anyone could need it. A chunk is
`slack` tokens on a grid of the text. Counts count to ten binary digits, and of equal ones the later token stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.cache.eviction._memory import AttendedMemory
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Signals
from longreach.core.method import at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class LFA(AttendedMemory):
    """Args: budget: tokens that stay (>= 1). slack: tokens that may come on top before some have to go. top_k: keys of a query that count
    as attended to. recent: of the budget, the last tokens, which stay in any case (default: half of it). packed: keys stand at places in
    the cache, so that it reads on beyond the window.
    """

    recent: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "recent")
        if self.recent is not None and self.recent > self.budget:
            raise SpecError(f"lfa: recent={self.recent} must be at most budget={self.budget}")

    @property
    def least(self) -> int:
        """The last tokens."""
        return max(1, self.recent or 0)

    @property
    def _last(self) -> int:
        return self.budget // 2 if self.recent is None else self.recent

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """How many queries attended to each; the last tokens stay in any case."""
        assert signals.times is not None  # noqa: S101 - asked for
        return signals.times.float().masked_fill(signals.index >= signals.seen - self._last, float("inf"))

    def worth(self, seen: int, history: History) -> Tensor:
        """Query by query, head by head."""
        times = self.attended(seen, history).sum((1, 2)).double()
        return times.masked_fill(torch.arange(history.k.shape[1]) >= seen - self._last, float("inf"))


METHOD = LFA
EXAMPLES = (
    LFA(budget=12, slack=4, top_k=2),
    LFA(budget=7, slack=1, top_k=1, recent=0),
    LFA(budget=9, slack=5, top_k=3, recent=2, packed=True),
)
NEUTRAL = (LFA(budget=64),)
BAD = ({"budget": 0}, {"budget": 8, "slack": 0}, {"budget": 8, "top_k": 0}, {"budget": 8, "recent": -1}, {"budget": 8, "recent": 9})
