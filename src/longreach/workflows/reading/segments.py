"""XL3M: every segment of the text is asked the question by itself; those that make the model sure of its answer are the key context.

    h_i = - mean over t of sum_v p(v | segment_i, question, y_<t) log p(v | segment_i, question, y_<t)

The key context is the segments with the smallest h_i, in the order of the text; y are the first tokens of the answer.

Paper: XL3M: A Training-free Framework for LLM Length Extension Based on Segment-wise Inference, 2024, arXiv:2405.17755
Cost: the whole text once, in as many calls of a few tokens as it has segments, side by side where the model takes several, and a call more.
Limits: needs log-probabilities; a model may be sure of a wrong answer, too. What takes many segments together does not fit.
Differs from the paper: the entropy is that of the first twelve tokens and not of one (`probe_tokens=1`), for chat models begin their
answers with words that say nothing. Endpoints give the likeliest 20 tokens only, and the rest counts as one. Segments end at sentences
and do not overlap.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo, at_least
from longreach.endpoint.base import MOST_LOGPROBS
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import cut, fitting
from longreach.workflows.desk import Desk, Note, Query
from longreach.workflows.reading._notes import task_part
from longreach.workflows.wording import ANSWER

_BEGIN = "Do the task below with the help of this text, and write nothing but the answer."


@dataclass(frozen=True, kw_only=True)
class Segments(ReadingWorkflow):
    """Args: segment_tokens: of a segment (default: an eighth of the window). keep: segments in the key context (default: as many as
    fit). probe_tokens: of the answer to each segment, whose mean entropy counts.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="XL3M: A Training-free Framework for LLM Length Extension Based on Segment-wise Inference", paper="arXiv:2405.17755"
    )
    segment_tokens: int | None = None
    keep: int | None = None
    probe_tokens: int = 12

    def __post_init__(self) -> None:
        at_least(self, 1, "segment_tokens", "keep", "probe_tokens")

    def read(self, desk: Desk) -> Note:
        """The answer. Raises: InputError where the model gives no log-probabilities."""
        task = task_part(desk)
        probe = min(self.probe_tokens, desk.answer_tokens)
        room = desk.room(_BEGIN, task, ANSWER, most=desk.answer_tokens)
        segments = cut(desk.documents, min(self.segment_tokens or max(8, desk.window // 8), room), desk.count)
        probes = desk.ask_all(
            Query(parts=(_BEGIN, segment, task, ANSWER), most=probe, role="probe", logprobs=MOST_LOGPROBS) for segment in segments
        )
        entropies = [probe.entropy for probe in probes]
        if any(entropy is None for entropy in entropies):
            raise InputError("segments needs log-probabilities, and the model gives none; choose another workflow (--workflow)")
        surest = sorted(segments, key=lambda segment: (entropies[segment.number], segment.number))
        key = sorted(fitting(surest, room)[: self.keep], key=lambda segment: segment.number)
        return desk.ask(_BEGIN, *key, task, ANSWER, most=desk.answer_tokens, role="answer", any_size=True)


METHOD = Segments
EXAMPLES = (Segments(), Segments(segment_tokens=48, keep=2, probe_tokens=1))
BAD = ({"segment_tokens": 0}, {"keep": 0}, {"probe_tokens": 0})
