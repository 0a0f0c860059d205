"""Self-controlled memory: every part becomes a memory with a summary; a controller picks those that matter, and whether a summary does.

Paper: Unleashing Infinite-Length Input Capacity for Large-scale Language Models with Self-Controlled Memory System, 2023, arXiv:2304.13343
Cost: the whole text once for the summaries, side by side where the model takes several, and up to two calls for each memory picked.
Limits: memories are found by the words that they share with the task.
Differs from the paper: relevance is BM25 and not an embedding; a document has no turn before the question, and so no flash memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk
from longreach.workflows.desk import Desk, Note, Part, Query
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.reading._notes import task_part
from longreach.workflows.wording import ANSWER, CHOICE, SUMMARY

_SUMMARISE = (
    "Below is a part of a long text. Summarise it in one or two sentences. Keep names, numbers and whatever could matter to the task."
)
_ENOUGH = "Can the task below be done, or a part of it, with what this text says? Write yes or no."
_BEGIN = "Below are memories of a long text, in the order of the text. Do the task with the help of them, and write nothing but the answer."
_DECAY = 0.99  # of recency, for each part that lies between a memory and the end

State = Literal["raw", "summary", "drop"]


@dataclass(frozen=True, kw_only=True)
class MemoryStream(ReadingWorkflow):
    """Args: memories: that the controller picks. memory_tokens: of a part (default: a quarter of the window). summary_tokens: of its
    summary (default: a sixteenth). recency: what a memory at the end of the text gains on one far before it, where 1 is the
    relevance of the best.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="Unleashing Infinite-Length Input Capacity for Large-scale Language Models with Self-Controlled Memory System",
        paper="arXiv:2304.13343",
    )
    memories: int = 6
    memory_tokens: int | None = None
    summary_tokens: int | None = None
    recency: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 1, "memories", "memory_tokens", "summary_tokens")
        at_least(self, 0, "recency")

    def read(self, desk: Desk) -> Note:
        """The answer."""
        most = self.summary_tokens or max(16, desk.window // 16)
        around = (_SUMMARISE, task_part(desk), SUMMARY)
        room = desk.room(*around, most=most)
        size = min(self.memory_tokens or desk.window // 4, room)
        parts = desk.chunks(*around, most=most, beside=room - size)
        summaries = desk.ask_all(Query(parts=(_SUMMARISE, part, *around[1:]), most=most, role="summary", again=True) for part in parts)
        picked = self._picked(desk, parts)
        states: dict[int, State] = dict.fromkeys(picked, "raw")
        if not _fits(desk, parts, summaries, states):
            states = _controlled(desk, parts, summaries, picked)
        shown = _shown(parts, summaries, states)
        return desk.ask(_BEGIN, *shown, task_part(desk), ANSWER, most=desk.answer_tokens, role="answer", any_size=True)

    def _picked(self, desk: Desk, parts: Sequence[TextChunk]) -> list[int]:
        """The memories that matter most, the one that matters most first."""
        relevance = LexicalIndex([part.text for part in parts]).scores(desk.task)
        best = max(relevance, default=0.0) or 1.0
        ranks = {number: score / best + self.recency * _DECAY ** (len(parts) - 1 - number) for number, score in enumerate(relevance)}
        return sorted(ranks, key=lambda number: (-ranks[number], number))[: self.memories]


def _controlled(desk: Desk, parts: Sequence[TextChunk], summaries: Sequence[Note], picked: Sequence[int]) -> dict[int, State]:
    """What of each memory is shown: of those that do not help nothing, of the others the summary where that helps, too, else the text.

    The best one stays whole; where all do not fit by then, the worst give way first.
    """
    states: dict[int, State] = dict.fromkeys(picked, "raw")
    for number in picked[:0:-1]:
        if not _helps(desk, parts[number]):
            states[number] = "drop"
        elif _helps(desk, summaries[number]):
            states[number] = "summary"
    for state in ("summary", "drop"):
        for number in picked[:0:-1]:
            if _fits(desk, parts, summaries, states):
                return states
            if states[number] != "drop":
                states[number] = "summary" if state == "summary" else "drop"
    return states if _fits(desk, parts, summaries, states) else states | {picked[0]: "summary"}


def _helps(desk: Desk, memory: Part) -> bool:
    said = desk.ask(_ENOUGH, memory, task_part(desk), CHOICE, most=4, role="choice", any_size=True)
    return said.text.strip(" \"'*.").lower().startswith("yes")


def _shown(parts: Sequence[TextChunk], summaries: Sequence[Note], states: dict[int, State]) -> list[Part]:
    """In the order of the text."""
    kept = sorted(number for number, state in states.items() if state != "drop")
    return [parts[number] if states[number] == "raw" else summaries[number] for number in kept]


def _fits(desk: Desk, parts: Sequence[TextChunk], summaries: Sequence[Note], states: dict[int, State]) -> bool:
    return desk.room(_BEGIN, *_shown(parts, summaries, states), task_part(desk), ANSWER, most=desk.answer_tokens) >= 0


METHOD = MemoryStream
EXAMPLES = (MemoryStream(), MemoryStream(memories=2, recency=0.5), MemoryStream(memory_tokens=40, summary_tokens=16))
BAD = ({"memories": 0}, {"recency": -0.1}, {"summary_tokens": 0})
