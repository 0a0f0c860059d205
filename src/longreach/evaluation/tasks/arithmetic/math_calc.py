"""Math calc: every intermediate result of a long sum.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each expression, and as many written tokens as it has.
Limits: a model that stops early, or miscounts once, gets nothing for the rest; each step needs its result before and one number of the
text.
Differs from the paper: half of a passage's length is kept for the answer, so that it can be written to its end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "This is a long expression.\n"
_MOST = 99  # no intermediate result is above it, or below 0
_ASK = Ask(
    text="Write the intermediate result after each operation as a list: for 8 - 3 + 2 - 4 it is [5, 7, 3]. Write nothing else.",
    opening="The results are", right="[]", most_tokens=1, until=("\n",),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MathCalc(TextTask):
    """Additions and subtractions of numbers below 100, whose results stay there, too."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "ordering"
    metric: ClassVar[str] = "share_before_error"
    needs_text: ClassVar[bool] = False

    def passage(self, space: Space) -> Passage:
        """An expression, and room for its results."""
        rng = space.rng()
        first = int(rng.integers(_MOST + 1))
        steps = Drawn(_Sums(rng, first).step)
        each = space.around((replace(_ASK, most_tokens=2),)) - space.around((_ASK,))  # units of a written token

        def text(count: int) -> str:
            return _HEAD + str(first) + "".join(f" {sign} {number}" for sign, number, _ in steps.first(count))

        def with_answer(count: int) -> str:
            answer = _written([result for _, _, result in steps.first(count)])
            return text(count) + "\n" + answer * each  # where a character is a token, it takes `each` units

        count = space.listed(with_answer, (_ASK,), least=2)
        results = [result for _, _, result in steps.first(count)]
        left = space.left((_ASK,)) - space.count(text(count))
        ask = replace(_ASK, right=_written(results), most_tokens=1 + left // each, expected=results)
        return Passage(text=text(count), asks=(ask,))

    def mark(self, ask: Ask, written: str) -> float:
        """The share of the results that come before the first wrong one."""
        right = 0
        for said, result in zip(re.findall(r"-?\d+", written), ask.expected, strict=False):
            if said != str(result):
                break
            right += 1
        return right / len(ask.expected)

    def chance(self, ask: Ask) -> float:
        """Whoever guesses each result has the first with 1 of 100, and so on."""
        return sum((1 / (_MOST + 1)) ** place for place in range(1, 3)) / len(ask.expected)

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any numbers."""
        return _written(rng.integers(_MOST + 1, size=3).tolist())


class _Sums:
    """Draws one operation after the other. Args: first: number of the expression."""

    def __init__(self, rng: np.random.Generator, first: int) -> None:
        self._rng, self._value = rng, first

    def step(self) -> tuple[str, int, int]:
        """A sign, a number, and the result."""
        adds = self._value < _MOST and (self._value == 0 or self._rng.random() < 0.5)
        number = int(self._rng.integers(1, (_MOST - self._value if adds else self._value) + 1))
        self._value += number if adds else -number
        return "+" if adds else "-", number, self._value


def _written(results: Sequence[int]) -> str:
    return f"[{', '.join(map(str, results))}]"


METHOD = MathCalc
EXAMPLES = (MathCalc(),)
BAD = ({"numbers": 5},)
