"""Refine: an answer from the first part of the text, which each further part may change.

Paper: BooookScore: A systematic exploration of book-length summarization in the era of LLMs (incremental updating), 2023, arXiv:2310.00785
Cost: the whole text once, in as many calls as it has parts, one after another.
Limits: an answer that is nearly right may be changed for the worse by a part that has nothing to do with it; small models do that often.
Differs from the paper: any task; the answer is kept where a part says nothing on it.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.method import MethodInfo
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, with_spans
from longreach.workflows.reading._notes import task_part
from longreach.workflows.wording import ANSWER, NOTHING, SO_FAR

_FIRST = (
    "Below is a part of a long text. Do the task as far as this part allows, and write nothing but the answer. If the part says nothing on "
    f"the task, write only {NOTHING}."
)
_LAST = (
    "Below is the last part of a long text; the parts before say nothing on the task. Do the task as far as this part allows, and write "
    "nothing but the answer. If it says nothing on the task either, say so in your answer."
)
_NEXT = (
    "Below are an answer from earlier parts of a long text, and the next part. Write the answer again, with what the next part adds to it "
    "or corrects in it; where it does neither, write it as it is. Write nothing but the answer."
)


@dataclass(frozen=True, kw_only=True)
class Refine(ReadingWorkflow):
    """Takes no settings."""

    info: ClassVar[MethodInfo] = MethodInfo(
        title="BooookScore: A systematic exploration of book-length summarization in the era of LLMs", paper="arXiv:2310.00785"
    )

    def read(self, desk: Desk) -> Note:
        """The answer after the last part."""
        most = desk.answer_tokens
        *chunks, last = desk.chunks(_NEXT, SO_FAR, "", task_part(desk), ANSWER, most=most, beside=most)
        answer: Note | None = None
        for chunk in chunks:
            answer = _refined(desk, answer, _FIRST, chunk, again=True)
        return _refined(desk, answer, _LAST, last, again=False) or Note(text=NOTHING)


def _refined(desk: Desk, answer: Note | None, begin: str, chunk: TextChunk, *, again: bool) -> Note | None:
    """The answer with what a part adds to it. Args: begin: what is asked where there is none. again: whether parts follow."""
    most, task = desk.answer_tokens, task_part(desk)
    if answer is None:
        said = desk.ask(begin, chunk, task, ANSWER, most=most, role="answer", any_size=True, again=again)
        return None if said.empty else said
    said = desk.ask(_NEXT, SO_FAR, answer, chunk, task, ANSWER, most=most, role="answer", any_size=True, again=again)
    if said.empty:
        return answer
    return with_spans(said, answer.spans) if said.text == answer.text else said


METHOD = Refine
EXAMPLES = (Refine(),)
BAD = ()
