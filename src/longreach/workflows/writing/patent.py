"""AutoPatent: a patent from a draft by a planner, writers and an examiner, each passage with what the draft says on it, and reviewed.

Paper: AutoPatent: A Multi-Agent Framework for Automatic Patent Generation, 2024, arXiv:2412.09796
Cost: a call for the plan and one for each section of it; two for each passage, to write and to examine it, and for each revision two more;
up to `retries` times as many where passages are too short.
Limits: what it says is as right as the model; passages are found by words; nobody checks claims against the law.
Differs from the paper: one model is planner, writers and examiner; references are found by BM25, in the draft and in the text so far; the
examiner objects in words or not at all, and gives no marks; the tree's shape follows from the length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import WritingWorkflow
from longreach.workflows.desk import Desk, Note, Part
from longreach.workflows.output_length import words_asked
from longreach.workflows.wording import NOTES, NOTHING, PLAN, TEXT, write_about
from longreach.workflows.writing._pen import Pen, Stride, note_tokens, task_part
from longreach.workflows.writing._plan import POINT_TOKENS, longest_plan, points_of
from longreach.workflows.writing._recall import PASSAGE_TOKENS, Recall, passages_of

_WORDS = 4000  # where neither the settings nor the task say how many
_TITLE_WORDS, _ABSTRACT_WORDS = 12, 150  # at most
_LINE = 24  # tokens of a line of a plan beside its point
_REVIEW = 128  # tokens of a review, where there is room for so many

_TO_PLAN = (
    "A patent is being written from the draft of its inventors, for the task below. Plan its detailed description: split what is named "
    "last into {parts} parts in order, and note of each what has to be said in it. Give one part on a line, numbered."
)
_TO_WRITE = (
    "A patent is being written from the draft of its inventors, for the task below. Write what comes next, exactly, in the language of "
    "patents and with the terms of the draft, and say nothing that it does not bear out. Write nothing but the text, and do not repeat "
    "what is there."
)
_TO_EXAMINE = (
    "You examine a part of a patent, for the task below. Compare it with what it has to say, and with the passages of the draft. Write "
    f"down what is missing, wrong or said badly, as short as you can. If it is good, write only {NOTHING}."
)
_TO_REVISE = (
    "A part of a patent, for the task below, was examined. Write it again so that the objections are met, and keep what is good. Write "
    "nothing but the text."
)
_DRAFT, _WRITTEN, _OBJECTIONS = "Passages of the draft:", "The part:", "Objections:"
_DESCRIPTION = "the detailed description: every part of the invention, how they work together, and at least one example of how it is used"


@dataclass(frozen=True)
class _PatentPart:
    """Args: name: its heading. says: what it has to say. share: of the words of the patent."""

    name: str
    says: str
    share: float


_PARTS = (
    _PatentPart("Title", "the title: what the invention is, in one line", 0.03),
    _PatentPart("Abstract", "the abstract: the problem, the invention and what it achieves, in one paragraph", 0.05),
    _PatentPart("Background", "the background: the technical field, what is known, and what is wrong with it", 0.1),
    _PatentPart("Summary", "the summary: the invention as it is claimed, and the good of it", 0.1),
    _PatentPart("Claims", "the claims, numbered: first an independent one with all that is essential, then dependent ones", 0.15),
)


@dataclass(frozen=True, kw_only=True)
class Patent(WritingWorkflow):
    """Args: words: of the whole patent (default: as many as the task asks for, else 4000). sections: of the description, and of each of
    those, at most. reviews: how often a passage may be sent back. part_words: of a passage, which is written in one call (fewer where the
    window has no room for them). retries: how often a passage that is too short is gone on with.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="AutoPatent: A Multi-Agent Framework for Automatic Patent Generation", paper="arXiv:2412.09796"
    )
    documents: ClassVar[Literal["none", "some", "needed"]] = "needed"
    words: int | None = None
    sections: int = 4
    reviews: int = 1
    part_words: int = 300
    retries: int = 1

    def __post_init__(self) -> None:
        at_least(self, 1, "words", "sections", "part_words")
        at_least(self, 0, "reviews", "retries")

    def words_meant(self, task: str) -> int:
        """By the settings, else by the task."""
        return self.words or words_asked(task) or _WORDS

    def most_work(self, role: str) -> str | None:
        """Plans as long as can be."""
        return longest_plan() if role == "plan" else None

    def write(self, desk: Desk) -> Iterator[Note]:
        """Title, abstract, background, summary, claims and description, each in its passages, headed by their names."""
        office = _Office(desk, self)
        for part in _PARTS:
            yield from office.part(part.name, [part.says], office.lengths[part.name])
        yield from office.part("Description", None, office.lengths["Description"])


class _Office:
    """Planner, writers and examiner at one desk."""

    def __init__(self, desk: Desk, patent: Patent) -> None:
        self._desk, self._patent = desk, patent
        self.lengths = _lengths(patent.words_meant(desk.task))
        around = (task_part(desk), _DRAFT, _WRITTEN, _OBJECTIONS, write_about(max(self.lengths.values())), TEXT)
        free = min(desk.room(begin, *around, most=0) for begin in (_TO_PLAN, _TO_WRITE, _TO_EXAMINE, _TO_REVISE))
        self._answer, self._shown = note_tokens(desk, free // 4), free // 5
        self._point = max(6, min(POINT_TOKENS, free // 24))
        self._review = max(6, min(_REVIEW, free // 12))
        self._pen = Pen(desk, retries=patent.retries, recalled=max(1, free // 10))
        self._draft = Recall(passages_of(desk.documents, max(1, min(PASSAGE_TOKENS, self._shown)), desk.count), desk.count)
        self._goal = 0

    def part(self, name: str, says: list[str] | None, words: int) -> Iterator[Note]:
        """A part of the patent. Args: says: what it has to say, passage by passage; None: that is to be planned."""
        stride = Stride.of(self._desk, words, part_words=self._patent.part_words, room=self._answer)
        notes = says * stride.passages if says else self._planned(stride.passages)
        before = self._goal
        for number, note in enumerate(notes, 1):
            self._goal = before + words * number // len(notes)
            passage = self._passage(f"{name}: {note}", stride)
            if passage and number == 1:
                yield Note(text=f"{name}\n\n{passage.text}", spans=passage.spans, cut=passage.cut)
            elif passage:
                yield passage

    def _passage(self, says: str, stride: Stride) -> Note | None:
        before = (task_part(self._desk), *self._references(says))

        def revised(note: Note, asked: int) -> Note:
            for _ in range(self._patent.reviews):
                tokens = note_tokens(self._desk, self._review)
                of = (*before, says, f"{_WRITTEN}\n{note.text}")
                review = self._desk.ask(_TO_EXAMINE, *of, NOTES, most=tokens, role="review")
                if review.empty:
                    break
                line = f"{_OBJECTIONS}\n{review.text}\n\n{write_about(asked)}"
                again = self._desk.ask(_TO_REVISE, *of, line, TEXT, most=stride.tokens(asked), role="revision")
                note = again if again.text else note
            return note

        return self._pen.write((_TO_WRITE, *before), f"Now comes {says}", stride, self._goal, revise=revised)

    def _planned(self, passages: int) -> list[str]:
        """What each passage of the description has to say: the leaves of a tree of sections and their parts."""
        found: list[str] = []
        for section, length in zip(self._split(_DESCRIPTION, shares := self._shares(passages)), shares, strict=True):
            parts = self._shares(length)
            leaves = [f"{section}: {leaf}" for leaf in self._split(section, parts)] if len(parts) > 1 else [section]
            for leaf, count in zip(leaves, parts, strict=True):
                found += [leaf] * count
        return found

    def _shares(self, passages: int) -> list[int]:
        """How many passages each section gets, of so many together."""
        sections = min(self._patent.sections, passages)
        return [passages * (at + 1) // sections - passages * at // sections for at in range(sections)]

    def _split(self, whole: str, shares: Sequence[int]) -> list[str]:
        if (parts := len(shares)) == 1:
            return [whole]
        before = (_TO_PLAN.format(parts=parts), task_part(self._desk), *self._references(whole), f"Split now: {whole}", PLAN)
        most = min(parts * (self._point + _LINE), self._answer)
        note = self._desk.ask(*before, most=most, role="plan")
        return points_of(note.text, parts, self._point, self._desk.count, general=f"what is still to be said of {whole}")

    def _references(self, says: str) -> tuple[Part, ...]:
        found = self._draft.best(f"{says} {self._desk.task}", self._shown)
        return (_DRAFT, found) if found else ()


def _lengths(words: int) -> dict[str, int]:
    """How many words each part gets; the description has what is left."""
    found = {part.name: max(1, int(words * part.share)) for part in _PARTS}
    found["Title"], found["Abstract"] = min(found["Title"], _TITLE_WORDS), min(found["Abstract"], _ABSTRACT_WORDS)
    return found | {"Description": max(1, words - sum(found.values()))}


METHOD = Patent
EXAMPLES = (Patent(words=300, part_words=40), Patent(sections=2, reviews=0, retries=2))
BAD = ({"words": 0}, {"sections": 0}, {"reviews": -1}, {"part_words": 0}, {"retries": -1})
