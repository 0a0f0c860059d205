"""Latent needle: a fact is asked for by what it means, in words that it does not contain.

Paper: NoLiMa: Long-Context Evaluation Beyond Literal Matching, 2025, arXiv:2502.05167
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each.
Limits: it takes what everybody knows (that the Louvre is in Paris); a small model may not know it, which its shortest length shows.
Differs from the paper: facts and questions are our own; all facts of a passage are of one sort, so that none stands out; several are asked
for; names are the candidates; real text around them is the user's and not cleared of words that a question shares with it.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import spread
from longreach.evaluation.asking.marks import choice_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.reasoning._associations import RELATIONS, Association, Relation
from longreach.evaluation.tasks.reasoning._people import first_names
from longreach.evaluation.text_task import Ability, TextTask

_MOST = 8  # facts of one sort with different answers


@dataclass(frozen=True, kw_only=True)
class LatentNeedle(TextTask):
    """Args: hops: steps of thought from a fact to what is asked (1 or 2). facts: in each text, each about somebody else (2 to 8).
    questions: to each text (1 to facts)."""

    info: ClassVar = MethodInfo(title="NoLiMa: Long-Context Evaluation Beyond Literal Matching", paper="arXiv:2502.05167")
    ability: ClassVar[Ability] = "latent"
    hops: int = 1
    facts: int = 8
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "hops", "questions")
        at_least(self, 2, "facts")
        for setting, most in (("hops", 2), ("facts", _MOST), ("questions", self.facts)):
            if getattr(self, setting) > most:
                raise SpecError(f"{self.name()}: {setting}={getattr(self, setting)} must be at most {most}")

    def passage(self, space: Space) -> Passage:
        """Real text with all facts, each in a part of its own."""
        rng = space.rng()
        relation = RELATIONS[int(rng.integers(len(RELATIONS)))]
        known = [relation.known[place] for place in rng.permutation(len(relation.known))[: self.facts]]
        names = first_names(rng, _MOST)[: self.facts]
        wordings = rng.integers(len(relation.facts), size=_MOST)
        facts = [
            _capital(relation.facts[wording].format(name=name, thing=one.thing))
            for wording, name, one in zip(wordings, names, known, strict=False)
        ]
        depths = spread(self.facts, rng)
        asks = tuple(self._ask(relation, known[number], names, number, depths[number], facts[number]) for number in range(self.questions))
        pieces = [(depth, f"\n{fact}\n") for depth, fact in zip(depths, facts, strict=True)]
        return Passage(text=space.filled(pieces, asks), asks=asks)

    def _ask(self, relation: Relation, known: Association, names: list[str], number: int, depth: float, fact: str) -> Ask:
        what = relation.asked[self.hops - 1].format(answer=known[self.hops])
        return Ask(
            text=f"Which character of the text above {what}? Answer with the name alone.", opening=f"The character who {what} is",
            right=names[number], choices=tuple(names), most_tokens=12, depth=depth, evidence=(fact,),
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the name, and no other one, is in the first sentence that has any."""
        return choice_said(ask, written)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


METHOD = LatentNeedle
EXAMPLES = (LatentNeedle(), LatentNeedle(hops=2, questions=3))
BAD = ({"hops": 0}, {"hops": 3}, {"facts": 1}, {"facts": 9}, {"questions": 0}, {"facts": 2, "questions": 3})
