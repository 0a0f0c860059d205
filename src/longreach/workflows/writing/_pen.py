"""Writes a text passage after passage, each of about as many words as it is to have, and keeps all that is written.

How many calls that takes at most, and how long each may be, hangs on the length that is asked for and on the window, never on what a
model writes: so that a run with the longest answers costs the most.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from longreach.workflows.counting import WindowError
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, Part
from longreach.workflows.output_length import words_in
from longreach.workflows.spans import Document, merged
from longreach.workflows.wording import TEXT, write_about
from longreach.workflows.writing._fit import ENDS, Count, ending
from longreach.workflows.writing._recall import PASSAGE_TOKENS, Recall, passages_of

_ENGLISH = "The keeper of the lighthouse wrote down every ship that passed, and what the weather was like on the day when it came by."
_FREEDOM = 1.4  # times as many tokens as the words asked for have on average: writers do not count
_SPARE = 16  # tokens of headings and the like
_CATCHING_UP = 1.25  # times a passage's words, asked for at most where those before were too short
_LEAST = 0.25  # of a passage's words, asked for at least where those before were too long
_ENOUGH = 0.8  # of a passage's words, from which it is not gone on with
_FEWEST = 4  # words that a passage must have room for

SO_FAR = "The text so far ends like this:"
_EARLIER = "Passages from earlier in the text:"
_NO_TEXT = "Nothing of the text is written yet."


def task_part(desk: Desk) -> str:
    """The task as it stands in every prompt."""
    return f"Task: {desk.task}"


def tokens_per_word(task: str, count: Count) -> float:
    """Tokens that a word has on average: in the task, where that is Chinese, else in English."""
    sample = task if any("\u4e00" <= character <= "\u9fff" for character in task) else _ENGLISH
    return count(sample) / max(1, words_in(sample))


def note_tokens(desk: Desk, shown: int) -> int:
    """Tokens that a note may have, of which so many are shown: fewer where tokens are estimates, which are on the safe side."""
    return shown if desk.count.exact else max(1, shown // 2)


@dataclass(frozen=True, kw_only=True)
class Stride:
    """A text in passages of equal length. Args: passages: how many. words: of each. rate: tokens of a word."""

    passages: int
    words: int
    rate: float

    @classmethod
    def of(cls, desk: Desk, words: int, *, part_words: int, room: int) -> "Stride":
        """That of a text of so many words. Args: part_words: of a passage, at most. room: tokens that there are for an answer.

        Raises: WindowError where hardly a word would fit.
        """
        rate = tokens_per_word(desk.task, desk.count)
        largest = int((room - _SPARE) / rate / _FREEDOM / _CATCHING_UP)
        if largest < min(words, _FEWEST):
            raise WindowError(
                f"a window of {desk.window} tokens leaves {max(0, room)} for a passage of the text; give a larger window (--window), or a "
                "shorter task"
            )
        passages = math.ceil(words / min(part_words, largest))
        return cls(passages=passages, words=math.ceil(words / passages), rate=rate)

    @property
    def most_words(self) -> int:
        """That are asked for at a time."""
        return math.ceil(self.words * _CATCHING_UP)

    @property
    def most(self) -> int:
        """Tokens that an answer has at most."""
        return self.tokens(self.most_words)

    def tokens(self, words: int) -> int:
        """Tokens that an answer of so many words may have."""
        return math.ceil(words * self.rate * _FREEDOM) + _SPARE

    def asked(self, lacking: int) -> int:
        """Words to ask for where so many are lacking."""
        return max(1, math.ceil(self.words * _LEAST), min(lacking, self.most_words))


Revise = Callable[[Note, int], Note]  # (what was written, words that were asked for) -> what takes its place


class Pen:
    """The text as it grows.

    Args: retries: how often a passage that is too short is gone on with. recalled: tokens of passages from farther back that a prompt
    shows beside the end of the text, where the whole text does not fit.
    """

    def __init__(self, desk: Desk, *, retries: int, recalled: int = 0) -> None:
        self._desk, self._retries, self._recalled = desk, retries, recalled
        self._pieces: list[str] = []
        self._passages: list[tuple[int, TextChunk]] = []  # where in the text each ends at the latest, and the passage
        self.words = 0

    @property
    def text(self) -> str:
        """All that is written."""
        return "".join(self._pieces)

    def write(self, before: Sequence[Part], passage: str, stride: Stride, goal: int, *, revise: Revise | None = None) -> Note | None:
        """The next passage; None where the model writes nothing.

        Args: before: of the prompt, without the text so far. passage: what it is to be about. goal: words that the text then has. revise:
        makes of each answer what is kept.
        """
        begun, notes = len(self._pieces), list[Note]()
        for _ in range(1 + self._retries):
            asked = stride.asked(goal - self.words)
            note = self._asked(before, passage, stride, asked)
            if not note.text:
                break  # the same would be asked again
            if revise:
                note = revise(note, asked)
            self._add(note, first=not notes)
            notes.append(note)
            if goal - self.words <= (1 - _ENOUGH) * stride.words:
                break
        if not notes:
            return None
        spans = merged(span for note in notes for span in note.spans)
        return Note(text="".join(self._pieces[begun:]).strip(), spans=spans, cut=notes[-1].cut)

    def end(self, most: int, query: str = "") -> tuple[Part, ...]:
        """What a prompt shows of the text so far, in so many tokens: all of it, or passages that match the query, and the end."""
        if not self._pieces:
            return (_NO_TEXT,)
        count, text = self._desk.count, self.text
        shown = ending(text, most, count)
        if not self._recalled or shown == text or most <= 2 * self._recalled:
            return (f"{SO_FAR}\n{shown}",) if shown else ()
        shown = ending(text, most - self._recalled - count(_EARLIER), count)
        before = [passage for end, passage in self._passages if end <= len(text) - len(shown)]
        earlier = Recall(before, count).best(query, self._recalled)
        return ((f"{_EARLIER}\n{earlier.text}",) if earlier else ()) + (f"{SO_FAR}\n{shown}",)

    def _asked(self, before: Sequence[Part], passage: str, stride: Stride, asked: int) -> Note:
        room = self._desk.room(*before, SO_FAR, f"{passage}\n{write_about(stride.most_words)}", TEXT, most=stride.most)
        line = f"{passage}\n{write_about(asked)}"
        return self._desk.ask(*before, *self.end(room, passage), line, TEXT, most=stride.tokens(asked), role="text")

    def _add(self, note: Note, *, first: bool) -> None:
        """What was cut in the middle of a sentence goes on in the same line."""
        going_on = not first and not self._pieces[-1].rstrip().endswith((*ENDS, '"'))
        joint = "" if not self._pieces else " " if going_on else "\n\n"
        self._pieces.append(joint + note.text)
        self.words += words_in(note.text)
        if self._recalled:
            passages, end = passages_of([Document(name="", text=note.text)], PASSAGE_TOKENS, self._desk.count), len(self.text)
            self._passages += [(end, passage) for passage in passages]
