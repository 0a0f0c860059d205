"""A text and what is asked of it, as plain strings, so that any model or endpoint can be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question about a passage.

    Args: text: the question; it follows the passage and is understood without `opening`. opening: how the answer begins, as "The pass key
    is": a model that completes text goes on from it; without the space after it. right: the perfect answer as it would be written, without
    the opening. choices: candidate answers, `right` among them, for scoring by likelihood; each as it would be written. most_tokens: that
    an answer takes at most. until: where an answer ends. depth: where in the passage that stands which the answer hangs on, 0 to 1; of
    several places the first. evidence: the parts of the passage, word for word, without which nobody can know the answer. about: what else
    the question is, for its row: plain JSON values. expected: what the task needs to mark an answer, where `right` does not say it. free:
    answered in free words, `right` being one good answer of many, so that a judge may mark it, too.
    """

    text: str
    opening: str = ""
    right: str
    choices: tuple[str, ...] = ()
    most_tokens: int = 16
    until: tuple[str, ...] = ("\n",)
    depth: float | None = None
    evidence: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    expected: Any = None
    free: bool = False

    def __post_init__(self) -> None:
        if self.choices and self.right not in self.choices:
            raise ValueError(f"the right answer {self.right!r} is not among the choices")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError(f"two of the choices are equal: {self.choices}")

    @property
    def sure_stops(self) -> tuple[str, ...]:
        """Those of `until` that cannot come before the answer has begun, as a line end can."""
        return tuple(stop for stop in self.until if stop.strip())


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A message before the passage. Args: role: user or assistant."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A text to read once and all that is asked of it.

    Args: turns: a conversation before it, ending with an answer of the assistant. cut: units of the text that were taken out of it.
    """

    text: str
    asks: tuple[Ask, ...]
    turns: tuple[Turn, ...] = ()
    cut: int = 0

    @property
    def whole(self) -> str:
        """All that is read before the question, the conversation included."""
        return "\n".join([*(turn.text for turn in self.turns), self.text])

    @property
    def spoken(self) -> str:
        """The same, with who said what."""
        return "".join(f"{turn.role.capitalize()}: {turn.text}\n" for turn in self.turns) + self.text

    def as_text(self, ask: Ask) -> str:
        """All that is read for a question, as text to be completed, with the beginning of the answer."""
        return f"{self.spoken}\n\n{ask.text}\n{ask.opening or 'Answer:'}"

    def as_messages(self, ask: Ask) -> list[dict[str, str]]:
        """All that is read for a question, as the messages of a conversation; the beginning of the answer is none of them."""
        turns = [{"role": turn.role, "content": turn.text} for turn in self.turns]
        return [*turns, {"role": "user", "content": f"{self.text}\n\n{ask.text}"}]


@dataclass(frozen=True, kw_only=True)
class Response:
    """What came back for one question.

    Args: written: the answer. likelihoods: log-probability in nats of each choice; () where the answerer cannot tell. failed: why there is
    no answer. tokens: read and written for it, as far as known. seconds: that it took. peak_bytes: memory that its passage needed beside
    the model, where that was measured.
    """

    written: str = ""
    likelihoods: tuple[float, ...] = ()
    failed: str = ""
    tokens: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None


def before_stop(text: str, stops: Sequence[str]) -> str:
    """An answer to the first stop after its beginning."""
    begun = len(text) - len(text.lstrip())
    ends = [place for stop in stops if (place := text.find(stop, begun)) >= 0]
    return text[: min(ends)] if ends else text
