"""Map-reduce: notes on every part of the text, each taken by itself; merged until they fit; the answer from them.

Paper: Recursively Summarizing Books with Human Feedback, 2021, arXiv:2109.10862
Cost: the whole text once, in as many calls as it has parts, side by side where the model takes several; the notes once or twice more.
Limits: a part is read without the others, so what helps only together with another part may be left out of the notes.
Differs from the paper: any task, not summaries alone; prompts instead of a model trained for each level.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.desk import Desk, Note
from longreach.workflows.reading._notes import answer_from, merge_notes, take_notes


@dataclass(frozen=True, kw_only=True)
class MapReduce(ReadingWorkflow):
    """Args: note_tokens: of the notes on a part, and of merged ones (default: a sixth of the window)."""

    info: ClassVar[MethodInfo] = MethodInfo(title="Recursively Summarizing Books with Human Feedback", paper="arXiv:2109.10862")
    note_tokens: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "note_tokens")

    def read(self, desk: Desk) -> Note:
        """The answer."""
        most = self.note_tokens or desk.note_tokens
        return answer_from(desk, merge_notes(desk, take_notes(desk, most), most))


METHOD = MapReduce
EXAMPLES = (MapReduce(), MapReduce(note_tokens=24))
BAD = ({"note_tokens": 0},)
