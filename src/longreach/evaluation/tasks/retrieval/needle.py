"""Needle in a haystack: a number stated in the midst of real text is asked for at the end.

Paper: Needle In A Haystack - Pressure Testing LLMs, 2023, github.com/gkamradt/LLMTest_NeedleInAHaystack
Cost: one pass over each prompt and a few generated tokens; shared, one pass over each text for all its questions.
Limits: one fact, found by its very words: it shows whether far text can be reached, not whether it is understood.
Differs from the paper: a number for a city, as in RULER (arXiv:2404.06654), so that answers are scored without a judge model.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo
from longreach.decoding.encoder import Encoder
from longreach.evaluation.asking.passage import Passage
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.tasks.retrieval._retrieval import RetrievalTask, Wording
from longreach.evaluation.text import Ids

_CITIES = (
    "Athens", "Berlin", "Boston", "Cairo", "Chicago", "Delhi", "Dublin", "Geneva", "Havana", "Lisbon", "London", "Madrid", "Moscow",
    "Nairobi", "Oslo", "Paris", "Prague", "Rome", "Seoul", "Sydney", "Tokyo", "Vienna", "Warsaw", "Zurich",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Needle(RetrievalTask):
    """Args: digits: of the number (1 to 7). shared: read each text once and ask all questions of it, not one prompt for every question.

    A shared text has no fact in it. Each fact is read aside where it would stand, and only its own question sees it
    (evaluation/readings.py), so that the answers agree with those to prompts of one fact. It takes a method under which tokens can be
    changed for others: none that chooses by content what it keeps or sees.
    """

    info: ClassVar = MethodInfo(title="Needle In A Haystack - Pressure Testing LLMs", paper="github.com/gkamradt/LLMTest_NeedleInAHaystack")
    options: ClassVar = RetrievalTask.options | {"windows"}
    fewest_windows: ClassVar = 1
    shared: bool = False

    @property
    def reads_once(self) -> bool:
        """Where its texts are shared."""
        return self.shared

    def wording(self, rng: np.random.Generator, value: str) -> Wording:
        """One of some cities gets the number."""
        city = rng.choice(_CITIES)
        fact = f"\nOne of the special magic numbers for {city} is: {value}.\n"
        question = f"\nThe special magic number for {city} is:"
        return Wording("", fact, question, f"What is the special magic number for {city} that the text above mentions?")

    def passage(self, space: Space) -> Passage:
        """Real text with one fact, at the depth whose turn it is."""
        ask, wording = self.ask(space.rng(), DEPTHS[space.number % len(DEPTHS)])
        return Passage(text=space.filled([(ask.depth or 0.0, wording.fact)], (ask,)), asks=(ask,))

    def filler(self, encoder: Encoder, haystack: Ids, count: int) -> Ids:
        """The beginning of the haystack."""
        return haystack[:count]


METHOD = Needle
EXAMPLES = (Needle(), Needle(digits=7), Needle(shared=True))
BAD = ({"digits": 0}, {"digits": 8})
