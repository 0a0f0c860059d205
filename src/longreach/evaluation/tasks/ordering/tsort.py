"""TSort: segments of a text, in random order, are put into the order in which they were written.

Paper: Ada-LEval: Evaluating Long-Context LLMs with Length-Adaptable Benchmarks, 2024, arXiv:2404.06480
Cost: one pass over each passage, and up to 8 written tokens for each segment.
Limits: only the whole order counts, of which the paper's models got few right; text in which the same lines stand again and again has no
order that anyone could find.
Differs from the paper: segments are of equal length and cut from any text that is given, at the ends of lines or sentences; no worked
example stands before them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.filler import divided
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

_AROUND = 0.25  # of a segment: how much of what stands before and after the segments is told
_CHOICES = 24
_ORDER = re.compile(r"(?<!\d)\d(?:(?:\W|\band\b|\bthen\b|\bsegment\b)+\d)+(?!\d)")  # digits, with nothing but these between them


@dataclass(frozen=True, kw_only=True)
class Tsort(TextTask):
    """Args: segments: to be put in order (paper: 4; 2 to 9)."""

    info: ClassVar = MethodInfo(title="Ada-LEval: Evaluating Long-Context LLMs with Length-Adaptable Benchmarks", paper="arXiv:2404.06480")
    ability: ClassVar[Ability] = "ordering"
    segments: int = 4

    def __post_init__(self) -> None:
        at_least(self, 2, "segments")
        at_most(self, 9, "segments")

    def passage(self, space: Space) -> Passage:
        """A stretch of text, as long as there is room for, whose middle part stands in another order."""
        rng = space.rng()
        places = [int(place) for place in rng.permutation(self.segments)]  # of each segment that is shown, in the text
        right = _order(places.index(place) for place in range(self.segments))
        ask = Ask(
            text=f"In which order were the segments 1 to {self.segments} written, between what stands before and after them? "
            "Give their numbers as a list, that of the first segment first.",
            opening="Answer:", right=right, choices=self._choices(rng, right), most_tokens=8 * self.segments + 8, until=("\n\n",),
        )  # fmt: skip

        def shaped(text: str) -> str:
            before, *parts, after = divided(text, [_AROUND, *[1.0] * self.segments, _AROUND])
            shown = "".join(f"Segment {number}:\n{parts[place].strip()}\n\n" for number, place in enumerate(places, 1))
            return f"Before the segments:\n{before.strip()}\n\n{shown}After the segments:\n{after.strip()}"

        return Passage(text=space.shaped(shaped, (ask,)), asks=(ask,))

    def _choices(self, rng: np.random.Generator, right: str) -> tuple[str, ...]:
        """All orders, or as many random ones, the right one among them."""
        if factorial(self.segments) <= _CHOICES:
            return tuple(_order(order) for order in permutations(range(self.segments)))
        found = {right: None}
        while len(found) < _CHOICES:
            found[_order(rng.permutation(self.segments).tolist())] = None
        return tuple(sorted(found))

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the one order that is written is right, or the one that follows `Answer:`."""
        text = written.lower().rpartition("answer:")[2]
        orders = {tuple(map(int, re.findall(r"\d", found))) for found in _ORDER.findall(text)}
        return float(orders == {tuple(map(int, re.findall(r"\d", ask.right)))})

    def chance(self, ask: Ask) -> float:
        """One of all orders."""
        return 1 / factorial(self.segments)

    def guess(self, ask: Ask, rng: np.random.Generator) -> str:
        """Any order."""
        return _order(rng.permutation(self.segments).tolist())


def _order(places: Iterable[int]) -> str:
    return f"[{', '.join(str(place + 1) for place in places)}]"


METHOD = Tsort
EXAMPLES = (Tsort(), Tsort(segments=5))
BAD = ({"segments": 1}, {"segments": 10})
