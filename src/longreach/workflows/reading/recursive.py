"""Recursive reading without code: the model chooses one move after another (search, open, ask, note, answer) and sees what comes of it.

Paper: Recursive Language Models, 2025, arXiv:2512.24601
Cost: a call for each move, and one more for each part that is asked; the text is read only where the model opens it.
Limits: what no search finds and nobody opens is never read: the ledger says what that was. Small models choose badly.
Differs from the paper: the model writes no code that is run, but one of five moves in a line, which a small model can follow, too; a part
is asked by a call of the same model, one level deep.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, Part
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.reading._notes import task_part
from longreach.workflows.spans import Span
from longreach.workflows.wording import ANSWER, MOVE, NOTES, NOTHING

_BEGIN = (
    "You do a task on a long text of {total} parts, of which you see one at a time. Choose the next move, and write it on one line:\n"
    "search: words (lists the parts that hold these words)\n"
    "open: number (shows that part)\n"
    "ask: number: question (lets a helper read that part and answer)\n"
    "note: words (keeps what you have found)\n"
    "answer: words (ends with the answer to the task)"
)
_ASK = f"Below is a part of a long text. Answer the question with what helps with the task, as short as you can, or write only {NOTHING}."
_GIVE = "Below is what was found in a long text. Do the task with the help of it, and write nothing but the answer."
_FOUND, _OPEN, _NOTED, _DONE, _TOLD = "Found by the search:", "Open now:", "Noted:", "Moves so far:", "Result:"
_MOVE = re.compile(r"^[\s\-*>\d.`]*(search|open|ask|note|answer)[*`]*\s*[:(]?\s*(.*)$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_LISTED = 5  # parts that a search lists
_SHOWN = 60  # characters of a part in a list, and of a move in the list of those made


@dataclass(frozen=True, kw_only=True)
class Recursive(ReadingWorkflow):
    """Args: steps: moves at most. part_tokens: of a part (default: a third of the window)."""

    info: ClassVar[MethodInfo] = MethodInfo(title="Recursive Language Models", paper="arXiv:2512.24601")
    steps: int = 12
    part_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "part_tokens")

    def most_work(self, role: str) -> str | None:
        """A move that takes a call more."""
        return "ask: 1: What does it say?" if role == "move" else None

    def read(self, desk: Desk) -> Note:
        """The answer that the model ends with; after the last move, the one that it gives on what it has found."""
        search = _Search(desk, self.part_tokens or desk.window // 3)
        for _ in range(self.steps):
            said = desk.ask(*search.prompt(), most=search.move_tokens, role="move", any_size=True)
            answer = search.make(said)
            if answer is not None:
                return answer
        return desk.ask(_GIVE, *search.found(), task_part(desk), ANSWER, most=desk.answer_tokens, role="answer", any_size=True)


@dataclass
class _Search:
    """Where the search stands. Args: part_tokens: of a part at most."""

    desk: Desk
    part_tokens: int
    listed: TextChunk | None = None
    opened: TextChunk | None = None
    notes: list[Note] = field(default_factory=list)
    moves: list[str] = field(default_factory=list)
    result: str = ""

    def __post_init__(self) -> None:
        desk = self.desk
        self.move_tokens = max(desk.answer_tokens, desk.window // 16)
        around = (_BEGIN.format(total=9999), task_part(desk), MOVE)
        room = desk.room(*around, most=self.move_tokens)
        ask_room = desk.room(_ASK, task_part(desk), NOTES, most=self.move_tokens) - self.move_tokens
        self.parts = desk.chunks(*around, most=self.move_tokens, beside=max(0, room - min(self.part_tokens, ask_room, room // 2)))
        self.index = LexicalIndex([part.text for part in self.parts])

    def prompt(self) -> list[Part]:
        """What the model sees before its next move: the newest of everything, as far as it fits."""
        begin = _BEGIN.format(total=len(self.parts))
        opened: list[Part] = [] if self.opened is None else [_OPEN, self.opened]
        moves = [f"{_DONE} {'; '.join(self.moves[-8:])}"] if self.moves else []
        lists: list[Part] = [] if self.listed is None else [_FOUND, self.listed]
        result = [f"{_TOLD} {self.result}"] if self.result else []
        notes = list(self.notes)
        while True:
            noted: list[Part] = [_NOTED, *notes] if notes else []
            parts: list[Part] = [begin, task_part(self.desk), *lists, *opened, *noted, *moves, *result, MOVE]
            if self.desk.room(*parts, most=self.move_tokens) >= 0:
                return parts
            if lists:
                lists = []
            elif moves:
                moves = []
            elif len(notes) > 1:
                notes = notes[1:]
            else:
                opened = []

    def found(self) -> list[Part]:
        """The notes, and the part that is open, as far as they fit."""
        parts: list[Part] = [*self.notes, *([] if self.opened is None else [self.opened])]
        while parts and self.desk.room(_GIVE, *parts, task_part(self.desk), ANSWER, most=self.desk.answer_tokens) < 0:
            parts = parts[:-1]
        return parts

    def make(self, said: Note) -> Note | None:
        """Make the move that the model wrote; the answer, if it is one."""
        move, words = parsed(said.text)
        shown = f"{move}: {words}"[:_SHOWN]
        if move in ("search", "open") and shown in self.moves:
            self.result = "You made this move before; make another one."
            return None
        self.moves.append(shown)
        self.result = ""
        if move == "answer":
            return Note(text=words, spans=said.spans, cut=said.cut)
        if move == "search":
            self._search(words)
        elif move == "open" and (part := self._part(words)) is not None:
            self.opened = part
        elif move == "ask" and (part := self._part(words)) is not None:
            self._ask(part, _NUMBER.sub("", words, count=1).strip(" :"))
        elif move == "note":
            self.notes.append(Note(text=words, spans=() if self.opened is None else self.opened.spans))
        elif not move:
            self.result = "That was none of the moves."
        return None

    def _search(self, words: str) -> None:
        scores = self.index.scores(words)
        best = [number for number in self.index.ranked(words) if scores[number] > 0][:_LISTED]
        if not best:
            self.result = "No part holds these words; search for others."
            return
        lines = {number: _line(self.parts[number].text, words) for number in best}
        spans = [span for number, line in lines.items() for span in self._places(self.parts[number], line)]
        text = "\n".join(f"{number + 1}: {line}" for number, line in lines.items())
        self.listed = TextChunk(text=text, spans=tuple(spans), tokens=self.desk.count(text))

    def _places(self, part: TextChunk, line: str) -> Iterator[Span]:
        """Where a line of a part stands."""
        for span in part.spans:
            at = self.desk.documents[span.document].text.find(line, span.start, span.end)
            if at >= 0:
                yield Span(span.document, at, at + len(line))

    def _part(self, words: str) -> TextChunk | None:
        number = _NUMBER.search(words)
        if number is None or not 1 <= int(number[0]) <= len(self.parts):
            self.result = f"Name a part by its number, from 1 to {len(self.parts)}."
            return None
        return self.parts[int(number[0]) - 1]

    def _ask(self, part: TextChunk, question: str) -> None:
        desk, asked = self.desk, f"Question: {question}"
        if desk.count(asked) > self.move_tokens:
            self.result = "The question is too long."
            return
        said = desk.ask(_ASK, part, task_part(desk), asked, NOTES, most=self.move_tokens, role="part", any_size=True)
        if said.empty:
            self.result = "The part says nothing on that."
        else:
            self.notes.append(said)


def parsed(text: str) -> tuple[str, str]:
    r"""The move in what a model wrote, and its words; ("", "") for none.

    >>> parsed("I should look.\n- **Search**: copper key"), parsed("open (3)"), parsed("who knows")
    (('search', 'copper key'), ('open', '3'), ('', ''))
    """
    lines: Sequence[str] = text.strip().splitlines()
    for number, line in enumerate(lines):
        if found := _MOVE.match(line):
            move, words = found[1].lower(), found[2].strip(" )`*\t")
            if move == "answer":
                words = "\n".join([words, *lines[number + 1 :]]).strip()
            return move, words
    return "", ""


def _line(text: str, words: str) -> str:
    """The line or sentence of a part that shares the most words with a search, shortened."""
    sentences = [sentence for sentence in re.split(r"(?<=[.!?])\s+|\n+", text) if sentence.strip()]
    return sentences[LexicalIndex(sentences).ranked(words)[0]][: 2 * _SHOWN]


METHOD = Recursive
EXAMPLES = (Recursive(), Recursive(steps=20, part_tokens=40))
BAD = ({"steps": 0}, {"part_tokens": 0})
