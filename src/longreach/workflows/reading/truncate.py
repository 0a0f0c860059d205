"""Truncation: as much of the text as fits into one window, and the rest is never seen. What the other workflows are compared with.

Paper: LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding, 2023, arXiv:2308.14508
Cost: one call.   Limits: whatever is left out may hold the answer; the ledger says what that was.
Differs from the paper: cuts at the end of a sentence or a line, not within a word.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk, cut, fitting, size_of
from longreach.workflows.desk import Desk, Note
from longreach.workflows.reading._notes import task_part
from longreach.workflows.wording import ANSWER

Keep = Literal["start", "end", "both"]

_BEGIN = "Do the task below with the help of this text, and write nothing but the answer."


@dataclass(frozen=True, kw_only=True)
class Truncate(ReadingWorkflow):
    """Args: keep: which part of the text: its `start`, its `end`, or half a window of `both`."""

    info: ClassVar[MethodInfo] = MethodInfo(
        title="LongBench: A Bilingual, Multitask Benchmark for Long Context Understanding", paper="arXiv:2308.14508"
    )
    keep: Keep = "both"

    def __post_init__(self) -> None:
        if self.keep not in get_args(Keep):
            raise SpecError(f"{self.name()}: keep={self.keep} must be one of {', '.join(get_args(Keep))}")

    def read(self, desk: Desk) -> Note:
        """The answer."""
        around = (_BEGIN, task_part(desk), ANSWER)
        room = desk.room(*around, most=desk.answer_tokens)
        return desk.ask(_BEGIN, *self._kept(desk, room), *around[1:], most=desk.answer_tokens, role="answer")

    def _kept(self, desk: Desk, room: int) -> list[TextChunk]:
        whole = cut(desk.documents, room, desk.count)
        if len(whole) == 1:
            return whole
        if self.keep == "start":
            return whole[:1]
        # The last chunk is what was left over, and may be short: smaller ones from the end fill the room better.
        small = cut(desk.documents, max(1, room // 16), desk.count)
        if self.keep == "end":
            return fitting(small[::-1], room)[::-1]
        first = fitting(small, room // 2)
        return [*first, *fitting(small[len(first) :][::-1], room - sum(size_of(each) for each in first))[::-1]]


METHOD = Truncate
XFAIL = {"needle": "what it leaves out may hold the answer", "several_documents": "and so may a document that it leaves out"}
EXAMPLES = (Truncate(), Truncate(keep="start"), Truncate(keep="end"))
BAD = ({"keep": "middle"},)
