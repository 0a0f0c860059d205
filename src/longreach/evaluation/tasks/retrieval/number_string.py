"""Number string: ten digits with repetitions, hidden in repeated filler sentences, are asked for at the end.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each passage and up to 16 written tokens.
Limits: the filler is monotonous, so the digits stand out; what is hard is to copy how often each is repeated.
Differs from the paper: no digit is drawn twice in a row; the candidates for models that only give likelihoods are the same digits with
other repetitions.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.marks import NUMBER, first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.tasks.retrieval._noise import in_noise
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Important information is hidden in a lot of text that does not matter. Find it and remember it: it will be asked for.\n"
_CHOICES = 8


@dataclass(frozen=True, kw_only=True)
class NumberString(TextTask):
    """Args: digits: that are drawn (paper: 5; >= 2); as many again repeat one of them each."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "literal"
    needs_text: ClassVar[bool] = False
    digits: int = 5

    def __post_init__(self) -> None:
        at_least(self, 2, "digits")

    def passage(self, space: Space) -> Passage:
        """The filler's lines with one fact between them, at the depth whose turn it is."""
        rng, depth = space.rng(), DEPTHS[space.number % len(DEPTHS)]
        drawn = np.cumsum(rng.integers(1, 10, size=self.digits)) % 10
        strings = dict.fromkeys(_stretched(drawn.tolist(), rng) for _ in range(8 * _CHOICES))
        choices = list(strings)[:_CHOICES]
        right = choices[0]
        fact = f"\nThe sequence of digits is {right}. Remember it. {right} is the sequence of digits.\n"
        ask = Ask(
            text="What is the sequence of digits that the text above mentions?", opening="The sequence of digits is", right=right,
            choices=tuple(sorted(choices)), most_tokens=2 * self.digits + 6, depth=depth, evidence=(fact,),
        )  # fmt: skip

        def text(lines: int) -> str:
            return in_noise(_HEAD, fact, depth, lines)

        return Passage(text=text(space.listed(text, (ask,), least=2)), asks=(ask,))

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first number that is written is the right one."""
        return is_only(first_said(NUMBER, written), ask.right)


def _stretched(drawn: list[int], rng: np.random.Generator) -> str:
    """The digits with as many more, each beside an equal one."""
    digits = list(drawn)
    for _ in drawn:
        place = int(rng.integers(len(digits)))
        digits.insert(place, digits[place])
    return "".join(map(str, digits))


METHOD = NumberString
EXAMPLES = (NumberString(),)
BAD = ({"digits": 1},)
