"""What several reading workflows do with notes: take them from chunks, merge them until they fit, and answer from them."""

from collections.abc import Sequence

from longreach.workflows.counting import WindowError
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, Part, Query, kept
from longreach.workflows.wording import ANSWER, NOTES, NOTHING

# The text first, what is wanted of it last: a model of 135M parameters copies so what it otherwise makes up.
_TAKE = (
    "The text above is part {number} of {total} of a long text. Write down what it says that helps with this task, word for "
    f"word and as short as you can. If it says nothing that helps, write only {NOTHING}."
)
_MERGE = (
    "Above are notes on parts of a long text, in the order of the text. Write them down again, shorter. Keep every fact, name"
    " and number that helps with this task, word for word, and leave out what is said twice."
)
_ANSWER = "Below are notes on a long text, in the order of the text. Do the task with the help of them, and write nothing but the answer."

_NONE = "A long text was read, and nothing in it helps with the task below. Say so in your answer."


def task_part(desk: Desk) -> str:
    """The task as it stands in every prompt."""
    return f"Task: {desk.task}"


def take_notes(desk: Desk, most: int) -> list[Note]:
    """Notes of `most` tokens at most on each chunk of the documents; those that say nothing are left out."""
    longest = _TAKE.format(number=9999, total=9999)
    chunks = desk.chunks(longest, task_part(desk), NOTES, most=most)
    notes = desk.ask_all(_taking(desk, chunk, len(chunks), most) for chunk in chunks)
    return kept(desk.grounded(note, chunk) for note, chunk in zip(notes, chunks, strict=True))


def _taking(desk: Desk, chunk: TextChunk, total: int, most: int) -> Query:
    begin = _TAKE.format(number=chunk.number + 1, total=total)
    return Query(parts=(chunk, begin, task_part(desk), NOTES), most=most, role="notes", again=True)


def merge_notes(desk: Desk, notes: Sequence[Note], most: int) -> list[Note]:
    """The notes, merged by the model as often as it takes until all fit beside the answer. Raises: WindowError where they never would."""
    while not fits(desk, notes):
        groups = _grouped(desk, notes, most)
        if len(groups) >= len(notes):
            raise WindowError(
                f"notes of {most} tokens, two at a time, do not fit into a window of {desk.window}; give shorter notes or answers"
            )
        merged = desk.ask_all(Query(parts=_merging(desk, group), most=most, role="merge", again=True) for group in groups)
        notes = kept(desk.grounded(note, *group) for note, group in zip(merged, groups, strict=True))
    return list(notes)


def answer_from(desk: Desk, notes: Sequence[Note]) -> Note:
    """The answer to the task from notes; where there are none, the model is told so, and says what it says without them."""
    begin = _ANSWER if notes else _NONE
    return desk.ask(begin, *notes, task_part(desk), ANSWER, most=desk.answer_tokens, role="answer")


def fits(desk: Desk, notes: Sequence[Note]) -> bool:
    """Whether the notes leave room for the answer from them."""
    return desk.room(_ANSWER, *notes, task_part(desk), ANSWER, most=desk.answer_tokens) >= 0


def _merging(desk: Desk, notes: Sequence[Note]) -> tuple[Part, ...]:
    return (*notes, _MERGE, task_part(desk), NOTES)


def _grouped(desk: Desk, notes: Sequence[Note], most: int) -> list[list[Note]]:
    """Neighbours, as many as fit into a prompt together."""
    groups: list[list[Note]] = []
    for note in notes:
        if groups and desk.room(*_merging(desk, [*groups[-1], note]), most=most) >= 0:
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups
