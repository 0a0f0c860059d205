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

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage: turns, question, template, and the answer at its longest."""


class Tokens:
    """Tokens, counted exactly as `form` writes prompts. Args: template: what an endpoint's own template may add, where it is not known."""

    def __init__(self, form: "Form", template: int = 0) -> None:
        self.form, self.template = form, template
        self.name = "tokens"

    def count(self, text: str) -> int:
        """Of a passage."""
        return len(self.form.passage_ids(text))

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage."""
        return len(self.form.before_ids(turns)) + len(self.form.ask_ids(ask)) + ask.most_tokens + self.template


class Characters:
    """Characters: the same prompts for models with different tokenizers. Args: each: characters that stand for a token of an answer."""

    name = "characters"

    def __init__(self, each: int = 4) -> None:
        if each < 1:
            raise InputError(f"each={each} must be at least 1")
        self.each = each

    def count(self, text: str) -> int:
        """Of a passage."""
        return len(text)

    def around(self, ask: Ask, turns: Sequence[Turn]) -> int:
        """Of everything beside the passage."""
        return sum(len(turn.text) + 1 for turn in turns) + len(ask.text) + len(ask.opening) + 3 + self.each * ask.most_tokens
