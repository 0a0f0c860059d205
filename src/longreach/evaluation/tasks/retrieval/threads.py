"""Threads: in a JSON object of random keys a value is itself a key, whose value is one, and so on to the end, which is asked for.

Paper: Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?, 2024, arXiv:2411.05000
Cost: one pass over each passage for all its questions, and up to 45 written tokens for each thread of one.
Limits: each step is the finding of a key by its letters; an answer leaves no room for steps that are written down.
Differs from the paper: several questions to each object, whose threads distract from each other; several threads at once are marked by
F1, not by how many ends are right, so that listing everything does not pay; in `branches`, the asked end is the last key, as the end of a
list of values would be no single value; the last pair may be shorter, so that the object has the asked length.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import spread, uuids
from longreach.evaluation.asking.marks import UUID, all_said, first_said, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.retrieval._pairs import filled_object, written
from longreach.evaluation.text_task import Ability, TextTask

Direction = Literal["forward", "backward", "random"]

_HEAD = "In the JSON object below, some values are keys of the object, too, and so lead on to other values.\n\n"
_TOKENS = 45  # of a UUID


@dataclass(frozen=True, kw_only=True)
class _Thread:
    """Args: keys: from the start to the end that is asked for. pairs: those that it is followed through, with their depths."""

    keys: list[str]
    pairs: list[tuple[float, str]]


@dataclass(frozen=True, kw_only=True)
class Threads(TextTask):
    """Args: direction: where in the text the next pair of a thread stands. steps: from the first key to the end (>= 2). threads: that a
    question follows at once (>= 1). branches: values of each key, one of which leads on (>= 1). questions: to each object (>= 2).
    """

    info: ClassVar = MethodInfo(
        title="Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?", paper="arXiv:2411.05000"
    )
    ability: ClassVar[Ability] = "latent"
    metric: ClassVar[str] = "f1"
    needs_text: ClassVar[bool] = False
    direction: Direction = "forward"
    steps: int = 3
    threads: int = 1
    branches: int = 1
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 2, "steps", "questions")
        at_least(self, 1, "threads", "branches")

    def passage(self, space: Space) -> Passage:
        """An object with all threads and as many other pairs as there is room for; each pair of a thread stands in a part of its own."""
        rng = space.rng()
        size = self.steps + (self.branches > 1)
        depths = spread(size * self.threads * self.questions, rng)
        threads = [self._thread(rng, depths[place : place + size]) for place in range(0, len(depths), size)]
        groups = [threads[place : place + self.threads] for place in range(0, len(threads), self.threads)]
        asks = tuple(self._ask(groups, number) for number in range(self.questions))
        wanted = [pair for thread in threads for pair in thread.pairs]
        return Passage(text=filled_object(space, asks, wanted, head=_HEAD, values=self.branches), asks=asks)

    def _thread(self, rng: np.random.Generator, depths: list[float]) -> _Thread:
        keys = uuids(rng, self.steps + 1)
        places = depths if self.direction == "random" else sorted(depths, reverse=self.direction == "backward")
        pairs = []
        for place, depth in enumerate(places):
            values = uuids(rng, self.branches)
            if place < self.steps:
                values[int(rng.integers(self.branches))] = keys[place + 1]
            pairs.append((depth, written(keys[place], values)))
        return _Thread(keys=keys, pairs=pairs)

    def _ask(self, groups: list[list[_Thread]], number: int) -> Ask:
        threads = groups[number]
        ends = [", ".join(thread.keys[-1] for thread in group) for group in groups]
        early = ", ".join(thread.keys[-2] for thread in threads)
        text, opening = self._wording([thread.keys[0] for thread in threads])
        return Ask(
            text=text, opening=opening, right=ends[number], choices=(*ends, early), most_tokens=_TOKENS * self.threads + 20,
            until=("\n",) if self.threads == 1 else ("\n\n",), depth=min(depth for thread in threads for depth, _ in thread.pairs),
            evidence=tuple(pair for thread in threads for _, pair in thread.pairs),
        )  # fmt: skip

    def _wording(self, starts: list[str]) -> tuple[str, str]:
        several = len(starts) > 1
        begin = f"Start with the key{'s' if several else ''} {' and '.join(starts)}."
        each = " Do this for each of them." if several else ""
        if self.branches > 1:
            way = (
                "Of the values of a key, one may be a key itself: go on with that one, until you come to a key of which no value is a key."
            )
            what, opening = ("What are the last keys?", "The last keys are") if several else ("What is the last key?", "The last key is")
        else:
            way = "Where a value is a key itself, look up the value of that, and so on, until you come to a value that is no key."
            what, opening = (
                ("What are the last values?", "The last values are") if several else ("What is that value?", "The last value is")
            )
        return f"{begin} {way}{each} {what}", opening

    def mark(self, ask: Ask, written: str) -> float:
        """F1 of the UUIDs that are written, but for the first keys; where one is asked for, in the first sentence that has any."""
        right, starts = all_said(UUID, ask.right), all_said(UUID, ask.text)
        found = (all_said if len(right) > 1 else first_said)(UUID, written)
        return overlap([one for one in found if one not in starts], right)


METHOD = Threads
EXAMPLES = (
    Threads(),
    Threads(direction="backward", steps=2, threads=2, questions=3),
    Threads(direction="random", branches=2, steps=2, questions=3),
)
BAD = ({"steps": 1}, {"threads": 0}, {"branches": 0}, {"questions": 1})
