"""Ex3: a novel is expanded as a tree, outline into chapters, chapters into sections, sections into text, each with what is above it.

Paper: Ex3: Automatic Novel Writing by Extracting, Excelsior and Expanding, 2024, arXiv:2408.08506
Cost: two calls for each section and chapter, to outline it and to note its characters, and one for each passage of text, up to `retries`
more where that is too short; documents are read once, and their notes as often as it takes until they are one.
Limits: what happened before is known by outlines, characters and the end of the text; a section does not see other sections as a whole.
Differs from the paper: no model is tuned, so it writes by outlines alone (Excelsior, and the data for it, are left out); the structure
of given novels is extracted from parts of equal length, not from groups of similar chapters; the tree's shape follows from the length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import WritingWorkflow
from longreach.workflows.desk import Desk, Note, Part, Query
from longreach.workflows.output_length import words_asked
from longreach.workflows.wording import NOTES, PLAN, TEXT, write_about
from longreach.workflows.writing._fit import beginning
from longreach.workflows.writing._pen import SO_FAR, Pen, Stride, note_tokens, task_part
from longreach.workflows.writing._plan import POINT_TOKENS, longest_plan, points_of

_WORDS = 3000  # where neither the settings nor the task say how many
_LINE = 24  # tokens of a line of an outline beside what it says
_NOTES = 160  # tokens of notes on characters and on the structure, where there is room for so many

_EXTRACT = (
    "Below is a part of a novel, or of a draft of one. Write down its structure as short as you can: what happens, in order, who takes "
    "part in it, and what drives them."
)
_MERGE = (
    "Below are notes on the structure of a novel, part after part. Write them again as one, shorter: what happens, in order, who takes "
    "part in it, and what drives them."
)
_OUTLINE = (
    "A novel is being written for the task below. Split what comes next into {parts} parts that follow one another, and say of each what "
    "happens in it, who takes part, and how it leads to the next. Give one part on a line, numbered."
)
_WRITE = (
    "A novel is being written for the task below. Write the passage that comes next: scenes, with people who act and speak, no summary. "
    "Write nothing but the passage, and do not repeat what is there."
)
_CHARACTERS = (
    "A novel is being written for the task below. Write the list of its characters again, as short as you can, with what has become of "
    "them by the end of the text below: one on a line, name first."
)
_PASSAGE = "Now comes {path}: {point}"
_NO_OUTLINE = "what comes next in: {of}"


@dataclass(frozen=True, kw_only=True)
class Novel(WritingWorkflow):
    """Args: words: of the whole novel (default: as many as the task asks for, else 3000). depth: levels of outlines: chapters, sections and
    so on. branches: parts that an outline has at most. part_words: of a passage, which is written in one call (fewer where the window has
    no room for them). retries: how often a passage that is too short is gone on with.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="Ex3: Automatic Novel Writing by Extracting, Excelsior and Expanding", paper="arXiv:2408.08506"
    )
    documents: ClassVar[Literal["none", "some", "needed"]] = "some"
    words: int | None = None
    depth: int = 2
    branches: int = 5
    part_words: int = 300
    retries: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "words", "depth", "part_words")
        at_least(self, 2, "branches")
        at_least(self, 0, "retries")

    def words_meant(self, task: str) -> int:
        """By the settings, else by the task."""
        return self.words or words_asked(task) or _WORDS

    def most_work(self, role: str) -> str | None:
        """Outlines as long as can be."""
        return longest_plan() if role == "plan" else None

    def write(self, desk: Desk) -> Iterator[Note]:
        """The passages, in order. Documents, if there are any, are a draft or examples: their structure is extracted first."""
        words = self.words_meant(desk.task)
        around = (task_part(desk), _PASSAGE, write_about(words), TEXT)
        free = min(desk.room(begin, *around, most=0) for begin in (_WRITE, _OUTLINE, _CHARACTERS))
        answer, notes = free * 3 // 8, max(8, min(_NOTES, free // 8))
        stride = Stride.of(desk, words, part_words=self.part_words, room=answer)
        telling = _Telling(
            desk=desk, stride=stride, pen=Pen(desk, retries=self.retries), branches=self.branches, depth=self.depth, words=words,
            answer=answer, notes=notes, point=max(6, min(POINT_TOKENS, free // 4 // (self.depth + 1))),
        )  # fmt: skip
        if desk.documents:
            telling.structure = extracted(desk, notes)
        yield from telling.expand((), stride.passages)


@dataclass(kw_only=True)
class _Telling:
    """The novel as it grows. Args: answer, notes, point: tokens of an answer, of the notes on characters and structure, and of an outline's
    point."""

    desk: Desk
    stride: Stride
    pen: Pen
    branches: int
    depth: int
    answer: int
    notes: int
    point: int
    words: int
    done: int = 0
    structure: str = ""
    characters: str = ""

    def expand(self, above: tuple[str, ...], passages: int) -> Iterator[Note]:
        """What stands below an outline, depth first. Args: above: the points of the outlines above it, each with its place."""
        if len(above) == self.depth or (above and passages == 1):
            yield from self._section(above, passages)
            self._note_characters()
            return
        parts = min(self.branches, passages)
        borders = [at * passages // parts for at in range(parts + 1)]
        for number, point in enumerate(self._outline(above, parts), 1):
            place = f"{above[-1].partition(':')[0]}.{number}" if above else f"part {number}"
            yield from self.expand((*above, f"{place}: {point}"), borders[number] - borders[number - 1])

    def _section(self, above: Sequence[str], passages: int) -> Iterator[Note]:
        path, _, point = above[-1].partition(": ")
        for _ in range(passages):
            self.done += 1
            goal = self.words * self.done // self.stride.passages
            if note := self.pen.write((_WRITE, *self._known(above)), _PASSAGE.format(path=path, point=point), self.stride, goal):
                yield note

    def _outline(self, above: Sequence[str], parts: int) -> list[str]:
        """What happens in each of the parts; what the model leaves out is said in general."""
        before = (_OUTLINE.format(parts=parts), *self._known(above))
        ask = f"Split now: {above[-1]}" if above else "Split now: the whole novel"
        most = min(parts * (self.point + _LINE), self.answer)
        shown = self.pen.end(min(self.desk.room(*before, SO_FAR, ask, PLAN, most=most), self.notes))
        note = self.desk.ask(*before, *shown, ask, PLAN, most=most, role="plan")
        general = _NO_OUTLINE.format(of=above[-1].partition(": ")[2] if above else self.desk.task)
        return points_of(note.text, parts, self.point, self.desk.count, general=general)

    def _note_characters(self) -> None:
        before = (_CHARACTERS, task_part(self.desk), *self._listed_characters())
        most = note_tokens(self.desk, self.notes)
        room = self.desk.room(*before, SO_FAR, NOTES, most=most)
        note = self.desk.ask(*before, *self.pen.end(min(room, self.stride.most)), NOTES, most=most, role="notes")
        if not note.empty:
            self.characters = beginning(note.text, self.notes, self.desk.count)

    def _known(self, above: Sequence[str]) -> tuple[Part, ...]:
        """What every prompt has of the novel besides its text."""
        outlines = ["\n".join(("Outline:", *above))] if above else []
        structure = [f"Structure of the draft or the examples:\n{self.structure}"] if self.structure else []
        return (task_part(self.desk), *structure, *outlines, *self._listed_characters())

    def _listed_characters(self) -> tuple[Part, ...]:
        return (f"Characters:\n{self.characters}",) if self.characters else ()


def extracted(desk: Desk, tokens: int) -> str:
    """The structure of the documents in so many tokens at most: notes on their parts, merged from the bottom up."""
    most = note_tokens(desk, tokens)
    chunks = desk.chunks(_EXTRACT, task_part(desk), NOTES, most=most)
    notes = desk.ask_all(
        Query(parts=(_EXTRACT, chunk, task_part(desk), NOTES), most=most, role="extract") for chunk in chunks
    )  # fmt: skip
    texts = [beginning(note.text, tokens, desk.count) for note in notes]
    group = max(2, desk.room(_MERGE, task_part(desk), NOTES, most=most) // (tokens + 2))
    while len(texts) > 1:
        groups = [texts[at : at + group] for at in range(0, len(texts), group)]
        merged = desk.ask_all(
            Query(parts=(_MERGE, *together, task_part(desk), NOTES), most=most, role="merge") for together in groups
        )  # fmt: skip
        texts = [beginning(note.text, tokens, desk.count) for note in merged]
    return texts[0]


METHOD = Novel
EXAMPLES = (Novel(words=240, part_words=40, branches=2), Novel(depth=1, branches=3, retries=1))
BAD = ({"words": 0}, {"depth": 0}, {"branches": 1}, {"part_words": 0}, {"retries": -1})
