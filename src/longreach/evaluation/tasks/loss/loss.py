"""Loss by position: the mean loss of the next token, in octaves of how far into the text it stands.

Paper: Compressive Transformers for Long-Range Sequence Modelling, 2019, arXiv:1911.05507 (language modelling of long real text; PG-19)
Cost: one pass over each window of text.
Limits: a model that forgets can keep a low loss, for near text predicts most tokens: measure retrieval beside it.
Differs from the paper: loss a token and not perplexity a word, so only models of one tokenizer compare; by position, with intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
from transformers import PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.method import MethodInfo
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import token_losses
from longreach.evaluation.tasks.base import Case, Task, TaskPlan, stack


@dataclass(frozen=True, kw_only=True)
class Loss(Task):
    """Every window of text is read once, with the special tokens that the tokenizer puts first; a row for each window and octave."""

    info: ClassVar = MethodInfo(title="Compressive Transformers for Long-Range Sequence Modelling", paper="arXiv:1911.05507")
    options: ClassVar = frozenset({"windows"})
    only_reads: ClassVar[bool] = True
    fewest_windows: ClassVar = 2  # one gives no interval

    def cases(self, plan: TaskPlan) -> list[Case]:
        """One for each window. A row of length `b` with the setting `start` = `a` is for the tokens number a + 1 to b."""
        prefix = np.array(plan.encoder.prefix, dtype=np.int32)
        unpredicted = max(1, len(prefix))  # nothing stands before the first token, and special tokens are not text
        cases = []
        for window in plan.windows:
            ids = np.concatenate([prefix, window])
            rows = tuple(
                self.row(plan, ids, length=end, n=end - max(start, unpredicted), settings={"metric": "loss", "start": start})
                for start, end in pairwise((0, *plan.edges))
                if end > unpredicted
            )
            cases.append(Case(ids=ids[: plan.edges[-1]], rows=rows))  # the rest, where the model cannot read to the end of the window
        return cases

    def score(
        self, model: PreTrainedModel, cases: Sequence[Case], *, chunk_size: int, progress: Progress = SILENT
    ) -> list[tuple[float, ...]]:
        """Nats a token."""
        losses = token_losses(model, stack(model, cases), chunk_size=chunk_size, progress=progress)
        scores = []
        for case, row_losses in zip(cases, losses, strict=True):
            # The loss at index i is that of token number i + 2.
            values = tuple(row_losses[row.length - 1 - row.n : row.length - 1].mean().item() for row in case.rows)
            if wrong := [row.length for row, value in zip(case.rows, values, strict=True) if not math.isfinite(value)]:
                raise LongreachError(f"the loss is not a finite number at length {wrong[0]}; load the model with another dtype (float32)")
            scores.append(values)
        return scores


METHOD = Loss
EXAMPLES = (Loss(),)
BAD = ()
