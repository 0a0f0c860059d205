"""The contract of tasks that ask in plain text, so that any model and any endpoint can be measured by them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.base import Task

Ability = Literal["literal", "latent", "ordering", "aggregation"]
ABILITIES: tuple[Ability, ...] = get_args(Ability)


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Makes passages of any length with questions whose answers it knows, and marks what comes back.

    `ability`: what it shows of a model: `literal` finds text by its words, `latent` by what they mean or by joining facts, `ordering` hangs
    on where things stand, `aggregation` on much of the text at once. `metric`: what `mark` returns, from 0 (worst) to 1 (best).
    `needs_text`: passages are filled with real text. `free`: some of its answers are in free words, which a judge may mark, too.

    A passage is decided by the seed and its number: at every length and in every tokenizer it has the same facts and questions. Items
    that grow with the length (lines, documents) are drawn one after another, so that a longer passage begins as a shorter one does.
    """

    ability: ClassVar[Ability]
    metric: ClassVar[str] = "accuracy"
    needs_text: ClassVar[bool] = True
    free: ClassVar[bool] = False
    reads_ids: ClassVar[bool] = False

    @property
    def sized(self) -> bool:
        """Whether its passages fill the length; otherwise they are as long as they are, and the length is their limit."""
        return True

    @abstractmethod
    def passage(self, space: Space) -> Passage:
        """The passage of the space's number, which with any of its questions fits the space's length, and its questions.

        Raises: NoRoom for a length that does not hold the task, with the least one; InputError where the real text is too short.
        """

    def available(self) -> int | None:
        """Passages that there are; None where there is no end of them. Raises: InputError for a file without any."""
        return None

    @abstractmethod
    def mark(self, ask: Ask, written: str) -> float:
        """How right an answer is, from 0 to 1; 1 for `ask.right`. It never raises, whatever was written."""

    def metrics(self, ask: Ask) -> tuple[str, ...]:
        """What `marks` returns; the first is what `mark` does."""
        return (self.metric,)

    def marks(self, ask: Ask, written: str) -> tuple[float, ...]:
        """All marks of an answer, each from 0 to 1."""
        return (self.mark(ask, written),)

    def chance(self, ask: Ask) -> float:
        """The mean mark of `guess`: what a model gets that knows the question and the form of its answers, and has read nothing."""
        return 1 / len(ask.choices) if _offered(ask) else 0.0

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """An answer of one who has not read the passage: one of the choices that the question offers, or nothing where it offers none."""
        return str(ask.choices[int(rng.integers(len(ask.choices)))]) if _offered(ask) else ""


def _offered(ask: Ask) -> bool:
    return bool(ask.choices) and all(choice in ask.text for choice in ask.choices)
