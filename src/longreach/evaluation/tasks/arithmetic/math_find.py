"""Math find: the largest, smallest and middle numbers of a long list.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each list and a few written tokens for each of seven questions.
Limits: numbers below 100, so that the median needs counting and not remembering.
Differs from the paper: one list serves all seven questions, and they have the same answers at every length: extreme numbers stand in it
once, and as many others above the median as below it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import Drawn, spread, woven
from longreach.evaluation.asking.marks import first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "This is a list of numbers. Questions about it follow.\n"
_NUMBER = r"-?\d+"
_PLACES = ("", "second ", "third ")
_LOW, _HIGH, _MIDDLE = range(20), range(80, 100), range(40, 60)  # where the smallest, the largest and the median lie


@dataclass(frozen=True, kw_only=True)
class MathFind(TextTask):
    """Seven questions about a list: the three largest numbers, the three smallest, and the median."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "aggregation"
    needs_text: ClassVar[bool] = False

    def passage(self, space: Space) -> Passage:
        """Numbers in pairs of one above and one below the median, with the extreme ones among them."""
        rng = space.rng()
        lowest, highest = (sorted(rng.choice(ends, 3, replace=False).tolist()) for ends in (_LOW, _HIGH))
        median = int(rng.choice(_MIDDLE))
        depths = spread(7, rng)
        extreme = list(zip(depths, [*lowest, *highest, median], strict=True))
        asks = tuple(
            _ask(f"{place}{end} number", answer, depth)
            for end, of in (("smallest", extreme[:3]), ("largest", extreme[5:2:-1]))
            for place, (depth, answer) in zip(_PLACES, of, strict=True)
        )
        asks += (_ask("median, the middle one of the numbers if they were sorted,", median, None),)
        pairs = Drawn(lambda: _pair(rng, median))

        def text(count: int) -> str:
            others = [number for pair in pairs.first(count) for number in pair]
            return f"{_HEAD}[{', '.join(map(str, woven(others, extreme)))}]"

        return Passage(text=text(space.listed(text, asks, least=10)), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first sentence with a number has the right one alone."""
        return is_only(first_said(_NUMBER, written), ask.right)

    def chance(self, ask: Ask) -> float:
        """Of the twenty numbers that it may be."""
        return 1 / len(_MIDDLE)

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """One of them."""
        ends = _LOW if "smallest" in ask.text else _HIGH if "largest" in ask.text else _MIDDLE
        return str(rng.choice(ends))


def _pair(rng: np.random.Generator, median: int) -> tuple[int, int]:
    """One number below the median and one above it, in any order, and none of those that may be extreme."""
    pair = int(rng.integers(_LOW.stop, median)), int(rng.integers(median + 1, _HIGH.start))
    return pair if rng.random() < 0.5 else pair[::-1]


def _ask(what: str, answer: int, depth: float | None) -> Ask:
    return Ask(
        text=f"What is the {what} in the list? Write only the number.", opening="It is", right=str(answer), most_tokens=12, depth=depth
    )


METHOD = MathFind
EXAMPLES = (MathFind(),)
BAD = ({"numbers": 5},)
