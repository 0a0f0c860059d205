"""H2O: the tokens that got the most attention so far (heavy hitters) and the last ones stay, of each key-value head its own.

Paper: H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models, 2023, arXiv:2306.14048
Cost: attention weights are computed once more, for the accounts.   Limits: what got little attention when it was read is gone, whatever
is asked later; at its own positions it reaches no further than the model, packed it does.
Differs from the paper: `slack` tokens go at once, where the paper drops one with every token (slack=1); a prompt is read under the budget,
too; heads that share keys and values share what is kept, by the sum of their attention.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import Over
from longreach.core.errors import SpecError
from longreach.core.memory import Signal, Signals
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class H2O(Eviction):
    """Args: budget: tokens that stay (>= 2). recent: of them, the last ones (default: half of the budget, as in the paper). slack: tokens
    that may come on top before some have to go. packed: keys stand at places in the cache, so that it reads on beyond the window.
    """

    info: ClassVar = MethodInfo(
        title="H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models",
        paper="arXiv:2306.14048",
        bounded_memory=True,
        forgets=True,
        claims=(Claim(text="a fifth of the cache does for all of it, at next to no loss", metric="rise", at_most=0.05),),
    )
    signals: ClassVar[tuple[Signal, ...]] = ("received",)
    budget: int
    recent: int | None = None
    slack: int = 32

    def __post_init__(self) -> None:
        at_least(self, 2, "budget")
        at_least(self, 0, "recent")
        at_least(self, 1, "slack")
        if self.recent is not None and self.recent > self.budget:
            raise SpecError(f"h2o: recent={self.recent} must be at most budget={self.budget}")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["H2O", ...]:
        """A window that is never left: the budget and its slack fill it."""
        slack = max(1, trained_window // 8)
        return (cls(budget=max(2, trained_window - slack), slack=slack, packed=True),)

    def cut(self, layer: LayerContext) -> Over:
        """Whenever the slack is used up."""
        return Over(self.budget, self.slack)

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The attention received; the last tokens stay in any case."""
        assert signals.received is not None  # noqa: S101 - asked for
        return signals.received.masked_fill(signals.index >= signals.seen - self._last, float("inf"))

    @property
    def least(self) -> int:
        """The last tokens that stay."""
        return max(2, self.recent or 0)

    @property
    def _last(self) -> int:
        return self.budget // 2 if self.recent is None else self.recent

    def worth(self, seen: int, history: History) -> Tensor:
        """Accumulated attention, as in the paper."""
        index = torch.arange(history.k.shape[1])
        return history.by_kv_head()[:, :seen].sum(1).masked_fill(index >= seen - self._last, float("inf"))


METHOD = H2O
EXAMPLES = (H2O(budget=16, slack=4), H2O(budget=8, recent=2, slack=1), H2O(budget=12, recent=0, slack=5, packed=True))
NEUTRAL = (H2O(budget=64),)
BAD = ({"budget": 1}, {"budget": 8, "recent": 9}, {"budget": 8, "slack": 0}, {"budget": 8, "recent": -1})
