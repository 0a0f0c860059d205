"""Retrieval with reordering: the passages that match the task best, the best of them at both ends of the prompt.

Paper: Long-Context LLMs Meet RAG: Overcoming Challenges for Long Inputs in RAG, 2024, arXiv:2410.05983
Cost: one call; the text is searched by words, not read by the model.
Limits: what shares no word with the task is not found, and what needs many passages is not counted: the ledger says what was never read.
Differs from the paper: passages are found by BM25, not by an embedding model; its two ways of fine-tuning are not part of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar, get_args

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.cutting import TextChunk, cut, fitting
from longreach.workflows.desk import Desk, Note
from longreach.workflows.lexical import LexicalIndex
from longreach.workflows.reading._notes import task_part
from longreach.workflows.wording import ANSWER

Order = Literal["ends", "rank", "text"]
T = TypeVar("T")

_BEGIN = "Below are passages of a long text that may help with the task. Do the task, and write nothing but the answer."


@dataclass(frozen=True, kw_only=True)
class Rag(ReadingWorkflow):
    """Args: passage_tokens: of a passage (default: an eighth of the window). passages: that are shown at most (default: as many as fit).
    order: `ends`: the best first and last, the worst in the middle, as the paper reorders them; `rank`: the best first; `text`: as they
    stand in the text.
    """

    info: ClassVar[MethodInfo] = MethodInfo(
        title="Long-Context LLMs Meet RAG: Overcoming Challenges for Long Inputs in RAG", paper="arXiv:2410.05983"
    )
    passage_tokens: int | None = None
    passages: int | None = None
    order: Order = "ends"

    def __post_init__(self) -> None:
        at_least(self, 1, "passage_tokens", "passages")
        if self.order not in get_args(Order):
            raise SpecError(f"{self.name()}: order={self.order} must be one of {', '.join(get_args(Order))}")

    def read(self, desk: Desk) -> Note:
        """The answer."""
        room = desk.room(_BEGIN, task_part(desk), ANSWER, most=desk.answer_tokens)
        passages = cut(desk.documents, min(self.passage_tokens or max(8, desk.window // 8), room), desk.count)
        best = [passages[number] for number in LexicalIndex([passage.text for passage in passages]).ranked(desk.task)]
        shown = _ordered(fitting(best, room)[: self.passages], self.order)
        return desk.ask(_BEGIN, *shown, task_part(desk), ANSWER, most=desk.answer_tokens, role="answer")


def _ordered(best: list[TextChunk], order: Order) -> list[TextChunk]:
    if order == "text":
        return sorted(best, key=lambda passage: passage.number)
    return best_at_ends(best) if order == "ends" else best


def best_at_ends(best: Sequence[T]) -> list[T]:
    """Those of odd rank from the beginning on, those of even rank from the end on.

    >>> best_at_ends([1, 2, 3, 4, 5])
    [1, 3, 5, 4, 2]
    """
    return [*best[::2], *best[1::2][::-1]]


METHOD = Rag
EXAMPLES = (Rag(), Rag(order="rank", passages=3), Rag(order="text", passage_tokens=24))
BAD = ({"order": "best"}, {"passages": 0}, {"passage_tokens": 0})
