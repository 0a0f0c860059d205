"""Needle in a haystack: a number stated in the midst of real text is asked for at the end.

Paper: Needle In A Haystack - Pressure Testing LLMs, 2023, github.com/gkamradt/LLMTest_NeedleInAHaystack
Cost: one pass over each prompt and a few generated tokens.
Limits: one fact, found by its very words: it shows whether far text can be reached, not whether it is understood.
Differs from the paper: a number for a city, as in RULER (arXiv:2404.06654), so that answers are scored without a judge model.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo
from longreach.evaluation.tasks.retrieval._retrieval import RetrievalTask, Wording
from longreach.evaluation.text import Encoder, Ids

_CITIES = (
    "Athens", "Berlin", "Boston", "Cairo", "Chicago", "Delhi", "Dublin", "Geneva", "Havana", "Lisbon", "London", "Madrid", "Moscow",
    "Nairobi", "Oslo", "Paris", "Prague", "Rome", "Seoul", "Sydney", "Tokyo", "Vienna", "Warsaw", "Zurich",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Needle(RetrievalTask):
    """Args: digits: of the number (1 to 7)."""

    info: ClassVar = MethodInfo(title="Needle In A Haystack - Pressure Testing LLMs", paper="github.com/gkamradt/LLMTest_NeedleInAHaystack")
    options: ClassVar = RetrievalTask.options | {"windows"}
    fewest_windows: ClassVar = 1

    def wording(self, rng: np.random.Generator, value: str) -> Wording:
        """One of some cities gets the number."""
        city = rng.choice(_CITIES)
        fact = f"\nOne of the special magic numbers for {city} is: {value}.\n"
        return Wording("", fact, f"\nThe special magic number for {city} is:")

    def filler(self, encoder: Encoder, haystack: Ids, count: int) -> Ids:
        """The beginning of the haystack."""
        return haystack[:count]


METHOD = Needle
EXAMPLES = (Needle(), Needle(digits=7))
BAD = ({"digits": 0}, {"digits": 8})
