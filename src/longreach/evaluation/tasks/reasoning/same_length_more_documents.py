"""More documents, same length: questions over several documents, of which there are few long ones or many short ones.

Paper: More Documents, Same Length: Isolating the Challenge of Multiple Documents in RAG, 2025, arXiv:2503.04388
Cost: one pass over each passage for all its questions, and up to 16 written tokens for each.
Limits: what makes documents longer is real text that has nothing to do with them, so that the facts stand out from it.
Differs from the paper: questions and facts are ours, unless a file of MuSiQue is given; documents are lengthened by other real text, where
it takes their pages of Wikipedia; several questions to each set of documents of ours, so that even the smallest has some that distract; all
that is asked can be answered, and answers are names and not JSON.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from longreach.core.errors import InputError, SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.filler import placed
from longreach.evaluation.asking.items import spread
from longreach.evaluation.asking.marks import answered, any_of, first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.reasoning._chains import MOST_HOPS, Chain, FactDocument, chains, most_chains
from longreach.evaluation.tasks.reasoning._musique import multi_hop
from longreach.evaluation.text_task import Ability, TextTask


@dataclass(frozen=True, kw_only=True)
class SameLengthMoreDocuments(TextTask):
    """Args: documents: in each passage; the length and the places of those that a question needs stay the same (paper: to 20). hops:
    documents that lead to an answer (2 to 4). questions: to each passage (>= 2), each with documents of its own. file: JSON Lines of
    MuSiQue, one question to each passage (default: made ones).
    """

    info: ClassVar = MethodInfo(
        title="More Documents, Same Length: Isolating the Challenge of Multiple Documents in RAG", paper="arXiv:2503.04388"
    )
    ability: ClassVar[Ability] = "latent"
    documents: int = 20
    hops: int = 2
    questions: int = 3
    file: Path | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "hops", "questions")
        if self.hops > MOST_HOPS:
            raise SpecError(f"{self.name()}: hops={self.hops} must be at most {MOST_HOPS}")
        if self.file is not None:
            self._check_file(self.file)
        elif self.documents < (needed := self.hops * self.questions):
            raise SpecError(f"{self.name()}: documents={self.documents} must be at least {needed}, which the questions need")
        elif self.documents > (most := self.hops * most_chains()):
            raise SpecError(f"{self.name()}: documents={self.documents} must be at most {most}")

    def _check_file(self, file: Path) -> None:
        at_least(self, 1, "documents")
        for setting in ("hops", "questions"):
            if getattr(self, setting) != getattr(SameLengthMoreDocuments, setting):
                raise SpecError(f"{self.name()}: {setting}={getattr(self, setting)} has no effect on the questions of a file")
        if not file.exists():
            raise SpecError(f"{self.name()}: file={file} does not exist")

    def passage(self, space: Space) -> Passage:
        """Documents of real text, each with one fact."""
        return self._of_file(space, self.file) if self.file else self._made(space)

    def _of_file(self, space: Space, file: Path) -> Passage:
        """A question of the file with the documents that it needs and some of the others, lengthened by real text."""
        rng, known = space.rng("file"), multi_hop(file)
        one = known[int(rng.integers(len(known)))]
        others = [place for place in rng.permutation(len(one.paragraphs)).tolist() if not one.paragraphs[place].supporting]
        needed = [place for place, paragraph in enumerate(one.paragraphs) if paragraph.supporting]
        if not len(needed) <= self.documents <= len(one.paragraphs):
            raise InputError(
                f"{self.name()}: documents={self.documents} does not fit a question of {file}, which has {len(one.paragraphs)} and needs "
                f"{len(needed)} of them"
            )
        kept = [one.paragraphs[place] for place in sorted([*needed, *others[: self.documents - len(needed)]])]
        ask = Ask(
            text=f"{one.question} Answer with as few words as you can, from the documents above alone.",
            right=one.answers[0], most_tokens=24, depth=one.paragraphs[min(needed)].depth, about={"documents": self.documents},
            expected=one.answers,
            evidence=tuple(one.paragraphs[place].text for place in needed),
        )  # fmt: skip
        pieces = _laid_out([(paragraph.depth, FactDocument(paragraph.title, paragraph.text)) for paragraph in kept])
        head = f"Here are {self.documents} documents.\n"
        return Passage(text=space.shaped(lambda text: head + placed(text, pieces), (ask,), least=0.0), asks=(ask,))

    def _made(self, space: Space) -> Passage:
        rng = space.rng()
        told = chains(rng, -(-self.documents // self.hops), self.hops)
        wanted, others = told[: self.questions], [one for chain in told[self.questions :] for one in chain.documents]
        depths = spread(self.hops * self.questions, space.rng("places"))
        asks = tuple(self._ask(chain, told, depths[number * self.hops :]) for number, chain in enumerate(wanted))
        supporting = [one for chain in wanted for one in chain.documents]
        extra = between(depths, self.documents - len(depths))
        facts = sorted([*zip(depths, supporting, strict=True), *zip(extra, others, strict=False)])
        pieces = _laid_out(facts)
        head = f"Here are {self.documents} documents.\n"
        return Passage(text=space.shaped(lambda text: head + placed(text, pieces), asks), asks=asks)

    def _ask(self, chain: Chain, told: list[Chain], depths: list[float]) -> Ask:
        answers = tuple(one.answer for one in told)
        return Ask(
            text=f"{chain.question} Answer with the name alone.", opening=chain.opening, right=chain.answer,
            choices=answers[: self.questions], depth=min(depths[: self.hops]), about={"documents": self.documents},
            evidence=tuple(one.fact for one in chain.documents), expected=answers,
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the right name, and that of no other chain, is in the first sentence that has any; of a file, whether an answer is."""
        if self.file:
            return float(bool(first_said(any_of(ask.expected), answered(ask, written).partition("\n")[0])))
        return is_only(first_said(any_of(ask.expected), answered(ask, written)), ask.right)


def between(taken: list[float], count: int) -> list[float]:
    """So many more places (0 to 1), each where the widest gap is that is left; the first ones are the same for any count.

    A gap is halved; one before all places or behind them counts twice, and is cut so that a third of it stays outside.
    """
    places, found = sorted(taken), list[float]()
    for _ in range(count):
        gaps = [(2 * places[0], places[0] / 3), (2 * (1 - places[-1]), 1 - (1 - places[-1]) / 3)]
        gaps += [(later - earlier, (earlier + later) / 2) for earlier, later in pairwise(places)]
        found.append(max(gaps, key=lambda gap: gap[0])[1])
        places = sorted([*places, found[-1]])
    return found


def _laid_out(facts: list[tuple[float, FactDocument]]) -> list[tuple[float, str]]:
    """Each fact at its place, and a title half-way between it and the fact before."""
    pieces: list[tuple[float, str]] = []
    before = None
    for number, (depth, document) in enumerate(facts, start=1):
        pieces.append((0.0 if before is None else (before + depth) / 2, f"\n\nDocument {number}: {document.title}\n"))
        pieces.append((depth, f"\n{document.fact}\n"))
        before = depth
    return pieces


METHOD = SameLengthMoreDocuments
EXAMPLES = (
    SameLengthMoreDocuments(),
    SameLengthMoreDocuments(documents=6),
    SameLengthMoreDocuments(documents=12, hops=3),
    SameLengthMoreDocuments(documents=12, hops=4, questions=2),
)
BAD = ({"hops": 1}, {"hops": 5}, {"questions": 1}, {"documents": 5}, {"documents": 401}, {"file": "no/such.jsonl"})
