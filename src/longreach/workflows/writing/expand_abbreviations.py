"""Abbreviation expansion: sentences from the first letters of their words, with those of the user's own sentences that are most like them.

Paper: Parameter Efficient Tuning Allows Scalable Personalization of LLMs for Text Entry: A Case Study on Abbreviation Expansion, 2023,
arXiv:2312.14327
Cost: `samples` calls for each abbreviation, side by side where the model takes several; up to `rounds` times as many where none fits.
Limits: what the user never says alike is guessed; without an expansion that fits, the line says so.
Differs from the paper: its retrieval-augmented way alone, no tuning; sentences are found by letters and by words, not by embeddings; one
expansion a line, the one that is written most often, not five to choose from.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo, at_least
from longreach.workflows.abbreviations import abbreviation_of, letters_of, likeness, spoken_words
from longreach.workflows.base import WritingWorkflow
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, Query
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.spans import Document, Span
from longreach.workflows.wording import ABBREVIATION, SENTENCE
from longreach.workflows.writing._pen import tokens_per_word

NONE_FITS = "no expansion found"
_TEMPERATURE = 0.7  # of all samples but the first of all
_FREEDOM, _SPARE = 2, 8  # times as many tokens as words of that number have, and some for what is said around them
_CONTEXT = 0.5  # weight of words that the context shares with a sentence, against letters that the abbreviations share
_END = re.compile(r"(?<=[.!?])\s+|\n+")

_BEGIN = (
    "Somebody types only the first letter of each word. Write the sentence that is meant: exactly one word for each letter, in order, as "
    "this person speaks. Write nothing but the sentence."
)
_BEFORE = "Said before: {context}"


@dataclass(frozen=True)
class _Said:
    """A sentence that the user said. Args: place: in the documents."""

    text: str
    letters: str
    place: Span


@dataclass(frozen=True)
class _Line:
    """A line of the task. Args: text: as it stands there. letters: of its abbreviation. context: what was said before it."""

    text: str
    letters: str
    context: str

    @classmethod
    def of(cls, text: str) -> "_Line":
        context, bar, abbreviation = text.rpartition("|")
        return cls(text.strip(), letters_of(abbreviation if bar else text), context.strip())


@dataclass(frozen=True, kw_only=True)
class ExpandAbbreviations(WritingWorkflow):
    """Each line of the task is an abbreviation, with what was said before it, if that is known, in front of a `|`. Documents are what the
    user said earlier, a sentence or more on a line.

    Args: examples: of the user's sentences that a prompt shows. samples: expansions that are asked for at a time. rounds: how often.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="Parameter Efficient Tuning Allows Scalable Personalization of LLMs for Text Entry: A Case Study on Abbreviation Expansion",
        paper="arXiv:2312.14327",
    )
    documents: ClassVar[Literal["none", "some", "needed"]] = "needed"
    examples: int = 8
    samples: int = 4
    rounds: int = 2

    def __post_init__(self) -> None:
        at_least(self, 0, "examples")
        at_least(self, 1, "samples", "rounds")

    def pieces(self, task: str) -> tuple[str, ...]:
        """Its lines."""
        return tuple(line.text for line in _lines(task))

    def write(self, desk: Desk) -> Iterator[Note]:
        """A sentence for each line, or the line and that none is found."""
        said = [each for number, document in enumerate(desk.documents) for each in _sentences(number, document)]
        index = LexicalIndex([each.text for each in said])
        rate = tokens_per_word("", desk.count)
        for line in _lines(desk.task):
            most = int(len(line.letters) * rate * _FREEDOM) + _SPARE
            yield self._expanded(desk, line, _alike(line, said, index), most)

    def _expanded(self, desk: Desk, line: _Line, alike: Sequence[_Said], most: int) -> Note:
        prompt = self._prompt(desk, line, alike, most)
        own = Counter(tuple(spoken_words(each.text)) for each in alike if each.letters == line.letters)
        for turn in range(self.rounds):
            numbers = range(turn * self.samples, (turn + 1) * self.samples)
            notes = desk.ask_all(
                Query(parts=prompt, most=most, role="sentence", temperature=_TEMPERATURE if number else 0.0, seed=number)
                for number in numbers
            )
            found = [sentence for note in notes if abbreviation_of(sentence := _sentence(note.text)) == line.letters]
            if found:
                times = Counter(tuple(spoken_words(sentence)) for sentence in found)
                # Of those that are written as often, what the user has said before; then what was written first.
                best = max(found, key=lambda sentence: (times[words := tuple(spoken_words(sentence))], own[words]))
                return Note(text=best, spans=notes[0].spans)
        for each in alike:
            if each.letters == line.letters:  # the model has nothing, and the user has said something that fits
                return Note(text=each.text, spans=(each.place,))
        return Note(text=f"{line.text} ({NONE_FITS})")

    def _prompt(self, desk: Desk, line: _Line, alike: Sequence[_Said], most: int) -> tuple[str | TextChunk, ...]:
        """The most similar sentences, the most similar one last, as many as fit."""
        context = [_BEFORE.format(context=line.context)] if line.context else []
        asked = "\n".join([*context, f"{ABBREVIATION} {line.letters}", SENTENCE])
        around = (_BEGIN, f"Task: {line.text}", asked)
        room, shown = desk.room(*around, most=most), list[TextChunk]()
        for each in alike[: self.examples]:
            text = f"{ABBREVIATION} {each.letters}\n{SENTENCE} {each.text}"
            if (room := room - (tokens := desk.count(text)) - 2) < 0:
                break
            shown.append(TextChunk(text=text, spans=(each.place,), tokens=tokens))
        return (_BEGIN, *shown[::-1], f"Task: {line.text}", asked)


def _lines(task: str) -> list[_Line]:
    found = [line for text in task.splitlines() if (line := _Line.of(text)).letters]
    if not found:
        raise InputError("the task has no abbreviation; give one on each line, as: How was the film? | iwg")
    return found


def _sentences(number: int, document: Document) -> Iterator[_Said]:
    start = 0
    for end in [*_END.finditer(document.text), None]:
        until = end.start() if end else len(document.text)
        text = document.text[start:until]
        if letters := abbreviation_of(text):
            lead = len(text) - len(text.lstrip())
            yield _Said(text.strip(), letters, Span(number, start + lead, start + lead + len(text.strip())))
        start = end.end() if end else until


def _alike(line: _Line, said: Sequence[_Said], index: LexicalIndex) -> list[_Said]:
    """What the user said, most like the line first: in its letters, and in its context."""
    shared = index.scores(line.context) if line.context else [0.0] * len(said)
    most = max(shared, default=0.0) or 1.0
    scores = [likeness(line.letters, each.letters) + _CONTEXT * words / most for each, words in zip(said, shared, strict=True)]
    return [said[number] for number in sorted(range(len(said)), key=lambda number: (-scores[number], number))]


def _sentence(text: str) -> str:
    """The first line that says something, without quotes around it."""
    lines = [line for each in text.splitlines() if (line := each.removeprefix(SENTENCE).strip().strip("\"'*").strip())]
    return lines[0] if lines else ""


METHOD = ExpandAbbreviations
EXAMPLES = (ExpandAbbreviations(), ExpandAbbreviations(examples=2, samples=1, rounds=3))
BAD = ({"examples": -1}, {"samples": 0}, {"rounds": 0})
