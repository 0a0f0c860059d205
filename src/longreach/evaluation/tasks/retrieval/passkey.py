"""Passkey: a number hidden in repeated filler sentences is asked for at the end.

Paper: Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023, arXiv:2305.16300
Cost: one pass over each prompt and a few generated tokens.
Limits: the filler is monotonous, so the number stands out: models that fail on real text may pass.
Differs from the paper: the number may begin with 0, so that ten candidates differ in their first digit; prompts have an exact length.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from longreach.core.method import MethodInfo
from longreach.decoding.encoder import Encoder
from longreach.evaluation.asking.passage import Passage
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.tasks.retrieval._noise import NOISE, in_noise
from longreach.evaluation.tasks.retrieval._retrieval import RetrievalTask, Wording
from longreach.evaluation.text import Ids

_HEAD = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)


@dataclass(frozen=True, kw_only=True)
class Passkey(RetrievalTask):
    """Args: digits: of the number (paper: 5; 1 to 7)."""

    needs_text: ClassVar[bool] = False
    info: ClassVar = MethodInfo(
        title="Landmark Attention: Random-Access Infinite Context Length for Transformers", paper="arXiv:2305.16300"
    )

    def wording(self, rng: np.random.Generator, value: str) -> Wording:
        """The paper's words."""
        fact = f"\nThe pass key is {value}. Remember it. {value} is the pass key.\n"
        return Wording(_HEAD, fact, "\nWhat is the pass key? The pass key is", "What is the pass key?")

    def passage(self, space: Space) -> Passage:
        """The filler's lines with one fact between them, at the depth whose turn it is."""
        ask, wording = self.ask(space.rng(), DEPTHS[space.number % len(DEPTHS)])
        asks = (replace(ask, opening="The pass key is"),)

        def text(lines: int) -> str:
            return in_noise(_HEAD, wording.fact, ask.depth or 0.0, lines)

        return Passage(text=text(space.listed(text, asks, least=2)), asks=asks)

    def filler(self, encoder: Encoder, haystack: Ids, count: int) -> Ids:
        """The same line again and again, the last one cut."""
        return np.resize(np.array(encoder.encode_inside(NOISE), dtype=np.int32), count)


METHOD = Passkey
EXAMPLES = (Passkey(), Passkey(digits=7))
BAD = ({"digits": 0}, {"digits": 8})
