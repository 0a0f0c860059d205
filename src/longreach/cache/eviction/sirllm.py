"""SirLLM: beside the first and the last tokens stay those that surprised the model most: with the highest -log p under it.

Paper: SirLLM: Streaming Infinite Retentive LLM, 2024, arXiv:2405.12528
Cost: the output head is computed once more for every token, and a text is read in runs of `slack` tokens, one after the other.
Limits: what was easy to predict is gone, whatever is asked later. It needs a causal language model with its head, and input_ids.
Differs from the paper: a cut comes whenever `slack` tokens are on top of the budget, within a text, too, and older entropies decay with
every cut; the official code does both between the turns of a dialogue. The last tokens are kept apart from the others; in the official code
a surprising one counts among these, and one more of the last ones takes its place. The first token of a text has no entropy, where the
official code gives it the highest of its turn; it is kept as a sink.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import Over
from longreach.core.errors import SpecError
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class SirLLM(Eviction):
    """Args: budget: tokens that stay. num_sinks: of them, the first ones (>= 1; paper: 4). recent: of them, the last ones (default: half of
    the budget). slack: tokens that may come on top before some have to go. decay: what an entropy is multiplied by at every later cut
    (above 0; 1: none). packed: keys stand at places in the cache, as in the paper, so that it reads on beyond the window.
    """

    info: ClassVar = MethodInfo(
        title="SirLLM: Streaming Infinite Retentive LLM", paper="arXiv:2405.12528", bounded_memory=True, forgets=True
    )
    signals: ClassVar[tuple[Signal, ...]] = ("entropy",)
    by_head: ClassVar[bool] = False
    budget: int
    num_sinks: int = 4
    recent: int | None = None
    slack: int = 64
    decay: float = 1.0
    packed: bool = True

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "num_sinks", "slack")
        at_least(self, 0, "recent", "decay")
        if not 0 < self.decay <= 1:
            raise SpecError(f"sirllm: decay={self.decay:g} must be above 0 and at most 1")
        if self.num_sinks + self._last > self.budget:
            what = f"num_sinks={self.num_sinks} and recent={self._last}"
            raise SpecError(f"sirllm: {what} must together be at most budget={self.budget}, which they are a part of")

    @property
    def least(self) -> int:
        """The first and the last tokens."""
        return self.num_sinks + (self.num_sinks if self.recent is None else self.recent)

    @property
    def _last(self) -> int:
        return self.budget // 2 if self.recent is None else self.recent

    def cut(self, layer: LayerContext) -> Over:
        """Whenever the slack is used up."""
        return Over(self.budget, self.slack)

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The entropy, which has decayed at every cut since the token was read."""
        assert signals.entropy is not None  # noqa: S101 - asked for
        first = self.budget + self.slack
        cuts_before = (signals.index - first).div(self.slack, rounding_mode="floor").add(1).clamp(min=0)  # up to the token
        passed = (signals.seen - first) // self.slack - cuts_before
        stay = (signals.index < self.num_sinks) | (signals.index >= signals.seen - self._last)
        return (signals.entropy * self.decay**passed).masked_fill(stay, float("inf"))

    def worth(self, seen: int, history: History) -> Tensor:
        """Cut by cut."""
        worth = history.entropy.clone()
        for cut in self.cut(history.layer).before(0, seen, history.prompt):
            worth[:cut] *= self.decay
        worth[: self.num_sinks] = worth[max(0, seen - self._last) :] = float("inf")
        return worth.expand(len(history.k), -1)


METHOD = SirLLM
EXAMPLES = (SirLLM(budget=14, num_sinks=2, recent=5, slack=12, decay=0.7), SirLLM(budget=9, num_sinks=1, recent=0, slack=12, packed=False))
NEUTRAL = (SirLLM(budget=64),)
BAD = (
    {"budget": 0},
    {"budget": 16, "num_sinks": 0},
    {"budget": 16, "slack": 0},
    {"budget": 16, "recent": -1},
    {"budget": 16, "decay": 0},
    {"budget": 16, "decay": 1.5},
    {"budget": 16, "recent": 13},
)
