"""Free-form questions on documents: a number that a sentence of real text states once is asked for, with the sentence.

Paper: Giraffe: Adventures in Expanding Context Lengths in LLMs, 2023, arXiv:2308.10882
Cost: one pass over each passage for all its questions, and up to 10 written tokens for each.
Limits: a model may know the number by heart; `altered_qa` asks the same questions with other numbers. The sentence is found by its words.
Differs from the paper: documents are sections of the given text, set among more of it, and not pages of Wikipedia cut to length; questions
are its own sentences with a gap, and not those of Natural Questions; the first number of an answer counts, where it takes any.
"""

from dataclasses import dataclass

from longreach.evaluation.tasks.documents._numbers import NumberTask


@dataclass(frozen=True, kw_only=True)
class FreeformQa(NumberTask):
    """Args: questions: to each passage (>= 1)."""

    def told(self, number: str, other: str) -> str:
        """The number as it is."""
        return number


METHOD = FreeformQa
EXAMPLES = (FreeformQa(),)
BAD = ({"questions": 0},)
