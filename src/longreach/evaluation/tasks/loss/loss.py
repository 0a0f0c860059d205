"""Loss by position: the mean loss of the next token, in octaves of how far into the text it stands.

Paper: Compressive Transformers for Long-Range Sequence Modelling, 2019, arXiv:1911.05507 (language modelling of long real text; PG-19)
Cost: one pass over each window of text.
Limits: a model that forgets can keep a low loss, for near text predicts most tokens: measure retrieval beside it.
Differs from the paper: loss a token and not perplexity a word, so only models of one tokenizer compare; by position, with intervals.
"""

import hashlib
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from longreach.core.method import MethodInfo
from longreach.evaluation.readings import TextReading
from longreach.evaluation.rows import Row
from longreach.evaluation.tasks.base import Task, TaskPlan
from longreach.evaluation.text import Ids

_BLOCKS, _LEAST_BLOCK = 8, 64  # of an octave, and tokens of one
_TELLING = 64  # first tokens, which tell texts apart


@dataclass(frozen=True, kw_only=True)
class Loss(Task):
    """Every window of text is read once, with the special tokens that the tokenizer puts first; up to 8 rows for each octave."""

    info: ClassVar = MethodInfo(title="Compressive Transformers for Long-Range Sequence Modelling", paper="arXiv:1911.05507")
    options: ClassVar = frozenset({"windows"})
    only_reads: ClassVar[bool] = True
    fewest_windows: ClassVar = 1

    @property
    def reads_once(self) -> bool:
        """It does."""
        return True

    def reading(self, plan: TaskPlan, number: int) -> TextReading:
        """All octaves of the window, and nothing to ask."""
        ids = plan.text(number)
        unpredicted = max(1, len(plan.encoder.prefix))  # nothing stands before the first token, and special tokens are not text
        rows = [
            row
            for start, end in pairwise((0, *plan.edges))
            if end > unpredicted
            for row in octave(self, plan, ids, start, end, unpredicted)
        ]
        return TextReading(ids=ids, losses=tuple(rows))


def octave(task: Task, plan: TaskPlan, ids: Ids, start: int, end: int, unpredicted: int = 0) -> list[Row]:
    """Rows of the length `end` for the mean loss of the tokens [start, end) in blocks: of an octave's blocks an interval is made.

    `span` says which tokens a row is for, `text` of which text; the first `unpredicted` tokens have no loss.
    """
    text = hashlib.sha256(ids[:_TELLING].tobytes()).hexdigest()[:16]
    count = max(1, min(_BLOCKS, (end - start) // _LEAST_BLOCK))
    cuts = [start + (end - start) * number // count for number in range(count + 1)]
    return [
        task.row(
            plan, ids[:end], length=end, n=last - max(first, unpredicted),
            settings={"metric": "loss", "start": start, "span": [max(first, unpredicted), last], "text": text},
        )
        for first, last in pairwise(cuts)
        if last > unpredicted
    ]  # fmt: skip


METHOD = Loss
EXAMPLES = (Loss(),)
BAD = ()
