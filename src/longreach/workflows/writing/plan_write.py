"""AgentWrite: a plan of paragraphs, each with its main point and length, then paragraph after paragraph with what is written so far.

Paper: LongWriter: Unleashing 10,000+ Word Generation from Long Context LLMs, 2024, arXiv:2408.07055
Cost: a call for the plan and one for each passage, which reads the plan and as much of the text so far as the window holds; up to
`retries` more where a passage is too short.
Limits: what no longer fits into the window is known to the model by the plan alone; a model that hardly writes anything ends short.
Differs from the paper: paragraphs are written in passages of equal length, so that the cost is known beforehand; what was too short or
too long before changes what is asked for next; plans that cannot be read are made up from the task instead of dropped.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import WritingWorkflow
from longreach.workflows.desk import Desk, Note
from longreach.workflows.output_length import words_asked
from longreach.workflows.wording import PLAN, TEXT, write_about
from longreach.workflows.writing._pen import Pen, Stride, task_part
from longreach.workflows.writing._plan import (
    MOST_POINTS,
    POINT_TOKENS,
    PlannedPart,
    fitted,
    listed,
    longest_plan,
    parse_plan,
    spread,
    worded,
)

_WORDS = 1000  # where neither the settings nor the task say how many
_LEAST_POINT = 12  # tokens that say something
_LINE = 24  # tokens of a line of a plan beside its point, as models write it

_TO_PLAN = (
    "A long text is to be written for the task below, part after part. Plan it: give {points} parts at most, in order, one on a line, and "
    "together about {words} words. Say on each line what the part is about, and how many words it gets, in this form:\n"
    "1. Main point: ... - Word count: ..."
)
_TO_WRITE = (
    "A long text is being written for the task below, by the plan below. Write the passage that comes next. Write nothing but the passage, "
    "do not repeat what is there, and do not end the text before its last part."
)
_PASSAGE = "The next passage belongs to part {number} of {total}: {point}"
_BEGIN, _MIDDLE, _END = "Begin the text", "Go on, with what has not been said yet", "Bring the text to its end"


@dataclass(frozen=True, kw_only=True)
class PlanWrite(WritingWorkflow):
    """Args: words: of the whole text (default: as many as the task asks for, else 1000). part_words: of a passage, which is written in
    one call (fewer where the window has no room for them). retries: how often a passage that is too short is gone on with.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="LongWriter: Unleashing 10,000+ Word Generation from Long Context LLMs", paper="arXiv:2408.07055"
    )
    words: int | None = None
    part_words: int = 200
    retries: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "words", "part_words")
        at_least(self, 0, "retries")

    def words_meant(self, task: str) -> int:
        """By the settings, else by the task."""
        return self.words or words_asked(task) or _WORDS

    def most_work(self, role: str) -> str | None:
        """A plan as long as can be."""
        return longest_plan() if role == "plan" else None

    def write(self, desk: Desk) -> Iterator[Note]:
        """The passages, in order."""
        words = self.words_meant(desk.task)
        free = desk.room(_TO_WRITE, task_part(desk), _PASSAGE, write_about(words), TEXT, most=0)
        stride = Stride.of(desk, words, part_words=self.part_words, room=free * 3 // 8)
        points = max(1, min(stride.passages, MOST_POINTS, free // 4 // _LEAST_POINT))
        point_tokens = min(POINT_TOKENS, free // 4 // points)
        plan = self._plan(desk, words, points, point_tokens)
        shown = worded(plan, point_tokens, desk.count)
        pen, done = Pen(desk, retries=self.retries), 0
        before = (_TO_WRITE, task_part(desk), f"{PLAN}\n{listed(shown)}")
        for number, (point, passages) in enumerate(zip(shown, spread(plan, stride.passages), strict=True), 1):
            line = _PASSAGE.format(number=number, total=len(shown), point=point)
            for _ in range(passages):
                done += 1
                if note := pen.write(before, line, stride, words * done // stride.passages):
                    yield note

    def _plan(self, desk: Desk, words: int, points: int, point_tokens: int) -> list[PlannedPart]:
        if points == 1:
            return [PlannedPart(_BEGIN)]
        ask = (_TO_PLAN.format(points=points, words=words), task_part(desk), PLAN)
        most = min(points * (point_tokens + _LINE), desk.room(*ask, most=0))
        note = desk.ask(*ask, most=max(1, most), role="plan")
        return fitted(parse_plan(note.text), points) or _made_up(points)


def _made_up(points: int) -> list[PlannedPart]:
    """A plan where the model gives none."""
    return [PlannedPart(_BEGIN), *[PlannedPart(_MIDDLE)] * (points - 2), PlannedPart(_END)]


METHOD = PlanWrite
EXAMPLES = (PlanWrite(words=300, part_words=40), PlanWrite(retries=1))
BAD = ({"words": 0}, {"part_words": 0}, {"retries": -1})
