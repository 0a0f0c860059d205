"""Chain of agents: workers read the parts of a text one after another and hand on notes; a manager answers from the last ones.

Paper: Chain of Agents: Large Language Models Collaborating on Long-Context Tasks, 2024, arXiv:2406.02818
Cost: the whole text once, in as many calls as it has parts, one after another, and a call of the manager.
Limits: notes of one size go through all workers: what does not fit into them is lost on the way.
Differs from the paper: a worker that finds nothing leaves the notes as they were. `order=both` gives the manager the notes of both
directions, where the paper lets a judge choose between two answers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, kept, with_spans
from longreach.workflows.reading._notes import answer_from, task_part
from longreach.workflows.wording import NOTES, NOTHING

Direction = Literal["forward", "backward", "both"]

_BEFORE = "Notes on the parts before:"
_NEXT = "Next part:"
_WORKER = (
    "Above are notes on the parts of a long text so far, and its next part. Copy from both, word for word and as short as you"
    f" can, what helps with this task. If nothing helps, write only {NOTHING}."
)


@dataclass(frozen=True, kw_only=True)
class ChainOfAgents(ReadingWorkflow):
    """Args: note_tokens: of the notes that are handed on (default: a sixth of the window). order: in which the parts are read:
    `forward`, `backward`, or in `both` directions, each by itself.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="Chain of Agents: Large Language Models Collaborating on Long-Context Tasks", paper="arXiv:2406.02818"
    )
    note_tokens: int | None = None
    order: Direction = "forward"

    def __post_init__(self) -> None:
        at_least(self, 1, "note_tokens")
        if self.order not in get_args(Direction):
            raise SpecError(f"{self.name()}: order={self.order} must be one of {', '.join(get_args(Direction))}")

    def read(self, desk: Desk) -> Note:
        """The manager's answer."""
        most = self.note_tokens or max(8, desk.note_tokens // (2 if self.order == "both" else 1))
        chunks = desk.chunks(_BEFORE, "", _NEXT, _WORKER, task_part(desk), NOTES, most=most, beside=most)
        ways = {"forward": [chunks], "backward": [chunks[::-1]], "both": [chunks, chunks[::-1]]}[self.order]
        return answer_from(desk, kept(_handed_on(desk, way, most) for way in ways))


def _handed_on(desk: Desk, chunks: Iterable[TextChunk], most: int) -> Note:
    notes = Note(text=NOTHING)
    for chunk in chunks:
        said = desk.ask(_BEFORE, notes, _NEXT, chunk, _WORKER, task_part(desk), NOTES, most=most, role="worker", again=True)
        said = desk.grounded(said, notes, chunk)
        if not said.empty:  # what added nothing is no source
            notes = with_spans(said, notes.spans) if said.text == notes.text else said
    return notes


METHOD = ChainOfAgents
EXAMPLES = (ChainOfAgents(), ChainOfAgents(order="backward", note_tokens=24), ChainOfAgents(order="both"))
BAD = ({"note_tokens": 0}, {"order": "sideways"})
