"""What policies share that score tokens by what the cache holds: a budget of tokens or a share, spent once or again and again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from longreach.cache.base import Eviction
from longreach.core.bands import LayerContext
from longreach.core.cuts import Cut, Over, PromptEnd
from longreach.core.errors import SpecError
from longreach.core.method import at_least, format_value


@dataclass(frozen=True, kw_only=True)
class Scored(Eviction):
    """budget: tokens that stay (>= 1), or a share of the prompt (below 1). every: 0: cut once, where the prompt ends; else whenever so many
    tokens are on top of the budget, within the prompt, too (1: with every token).
    """

    budget: float
    every: int = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "budget", "every")
        name, said = self.name(), format_value(self.budget)
        if not self.budget or (self.budget > 1 and self.budget != int(self.budget)):
            raise SpecError(f"{name}: budget={said} must be a number of tokens, or a share of the prompt below 1")
        if self.budget < 1 and self.every:
            raise SpecError(
                f"{name}: budget={said} is a share of the prompt, and every={self.every} cuts within it; give a number of tokens"
            )

    def tokens(self, layer: LayerContext) -> int:
        """The budget, where it is a number."""
        return int(self.budget)

    def counts(self, score: Tensor, index: Tensor, layer: LayerContext) -> int | Tensor:
        """The budget, or its share of what is there, rounded to the nearest token."""
        return self._of(index.shape[-1])

    def shares(self, worth: Sequence[Mapping[int, float]], layer: LayerContext) -> list[int]:
        """The same for all heads."""
        return [self._of(len(values)) for values in worth]

    def _of(self, tokens: int) -> int:
        return int(self.budget) if self.budget >= 1 else max(1, round(self.budget * tokens))

    def cut(self, layer: LayerContext) -> Cut:
        """Once, or whenever the budget is exceeded by so much."""
        return Over(int(self.budget), self.every) if self.every else PromptEnd()

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """A prompt that is cut once is read where it stands."""
        return super().reference(i, j) if self.every else (i - j, j <= i)
