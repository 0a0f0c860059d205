"""Altered questions on documents: those of `freeform_qa`, with another number in the text, so that nobody knows it by heart.

Paper: Giraffe: Adventures in Expanding Context Lengths in LLMs, 2023, arXiv:2308.10882
Cost: one pass over each passage for all its questions, and up to 10 written tokens for each.
Limits: the sentence is found by its words; a changed number may be implausible, which the paper accepts, too, except for years.
Differs from the paper: as `freeform_qa`; a number is changed in the one sentence that states it and taken out elsewhere, where the paper
changes it everywhere. As there, a year changes by up to 10 years, and any other number to one with as many digits.
"""

from dataclasses import dataclass

from longreach.evaluation.tasks.documents._numbers import NumberTask


@dataclass(frozen=True, kw_only=True)
class AlteredQa(NumberTask):
    """Args: questions: to each passage (>= 1)."""

    def told(self, number: str, other: str) -> str:
        """The other number; the true one is among the choices."""
        return other


METHOD = AlteredQa
EXAMPLES = (AlteredQa(),)
BAD = ({"questions": 0},)
