"""What a length counts: tokens of a tokenizer, in the form in which a model is asked, or characters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from longreach.core.errors import InputError
from longreach.evaluation.asking.passage import Ask, Turn

if TYPE_CHECKING:
    from longreach.evaluation.asking.form import Form


class Units(Protocol):
    """How long texts are."""

    name: str

    def count(self, text: str) -> int:
        """Of a passage."""

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Of parts of a passage, each by itself: together they may have a few less, or more."""

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage: turns, question, template, and the answer at its longest."""


class Tokens:
    """Tokens, counted exactly as `form` writes prompts. Args: more: that every prompt and answer may take beside what is known of them."""

    name = "tokens"

    def __init__(self, form: "Form", more: int = 0) -> None:
        self.form, self.more = form, more

    def count(self, text: str) -> int:
        """Of a passage."""
        return len(self.form.passage_ids(text))

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Of parts of a passage, each by itself."""
        return self.form.passage_lengths(parts)

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage."""
        return len(self.form.before_ids(turns)) + len(self.form.ask_ids(ask)) + ask.most_tokens + self.more


class Characters:
    """Characters: the same prompts for models with different tokenizers.

    Args: each: characters that stand for a token of an answer. more: tokens that every answer may take beside those of its question.
    """

    name = "characters"

    def __init__(self, each: int = 4, more: int = 0) -> None:
        if each < 1:
            raise InputError(f"each={each} must be at least 1")
        self.each, self.more = each, more

    def count(self, text: str) -> int:
        """Of a passage."""
        return len(text)

    def counts(self, parts: Sequence[str]) -> list[int]:
        """Of parts of a passage."""
        return [len(part) for part in parts]

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage."""
        return sum(len(turn.text) + 1 for turn in turns) + len(ask.text) + len(ask.opening) + 3 + self.each * (ask.most_tokens + self.more)
