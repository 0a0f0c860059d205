"""Where texts are cut: a store takes tokens over there, and does not change between two cuts.

Where cuts lie depends on the row's own tokens and the end of its prompt alone, so that reading in chunks and at once cannot differ.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol


class Cut(Protocol):
    """Where a text is cut. Implementations are hashable. waits: nothing is cut before the prompt ends."""

    waits: ClassVar[bool]

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """The indices of tokens, of those from `begin` up to and without `end`, that a cut comes right before, ascending.

        prompt: tokens of the row's prompt; below 1 where the row begins after it.
        """
        ...

    def over(self, seen: int, prompt: int) -> bool:
        """Whether no cut comes any more once `seen` tokens of a row were read."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """A cut whenever so many tokens more of the row have been read."""

    waits: ClassVar[bool] = False
    tokens: int

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """Multiples of `tokens`, 0 left out."""
        return list(range(max(1, -(-begin // self.tokens)) * self.tokens, end, self.tokens))

    def over(self, seen: int, prompt: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, slots=True)
class Over:
    """A cut whenever `slack` tokens more than the budget are held (1: with every token, once the budget is spent)."""

    waits: ClassVar[bool] = False
    budget: int
    slack: int = 1

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """budget + slack, budget + 2 slack, ..."""
        first = self.budget + self.slack
        start = max(first, first + -(-(begin - first) // self.slack) * self.slack)
        return list(range(start, end, self.slack))

    def over(self, seen: int, prompt: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, slots=True)
class PromptEnd:
    """One cut, where the prompt ends (engine/prompt.py says where that is)."""

    waits: ClassVar[bool] = True

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """The token after the prompt."""
        return [prompt] if max(begin, 1) <= prompt < end else []

    def over(self, seen: int, prompt: int) -> bool:
        """After the first token that follows the prompt."""
        return seen > prompt


@dataclass(frozen=True, slots=True)
class FromPromptEnd:
    """A cut where the prompt ends, and from then on whenever so many tokens of the row are full."""

    waits: ClassVar[bool] = True
    tokens: int

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """The token after the prompt, and the multiples of `tokens` behind it."""
        if prompt < 1:
            return Every(self.tokens).before(begin, end, prompt)
        behind = Every(self.tokens).before(max(begin, prompt + 1), end, prompt)
        return PromptEnd().before(begin, end, prompt) + behind

    def over(self, seen: int, prompt: int) -> bool:
        """Never."""
        return False
