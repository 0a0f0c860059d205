"""Loss inside the window: the tokens beyond the trained window, each predicted from no more than a window of text before it.

Paper: Shortformer: Better Language Modeling using Shorter Inputs, 2021, arXiv:2012.15832 (sliding window inference)
Cost: twice the tokens of one pass over each window of text, in pieces that never exceed the trained window.
Limits: a standard to compare with: a model that uses its whole context can be better than it.
Differs from the paper: windows slide by half of their length and not by less, so that every token has at least half a window before it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.method import MethodInfo, at_least
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import token_losses
from longreach.evaluation.readings import span
from longreach.evaluation.tasks.base import Case, Task, TaskPlan, stack
from longreach.evaluation.tasks.loss.loss import octave


@dataclass(frozen=True, kw_only=True)
class InsideCase(Case):
    """Args: prefix: special tokens at the beginning of `ids`, which stand before every piece."""

    prefix: int


@dataclass(frozen=True, kw_only=True)
class LossInside(Task):
    """Args: window_size: tokens of a piece, special ones included (>= 8): the trained window.

    The texts and the octaves are those of `loss`, so that what a method loses beyond the window can be told token by token from what
    the text itself costs.
    """

    info: ClassVar = MethodInfo(title="Shortformer: Better Language Modeling using Shorter Inputs", paper="arXiv:2012.15832")
    options: ClassVar = frozenset({"windows"})
    only_reads: ClassVar[bool] = True
    fewest_windows: ClassVar = 1
    in_pieces: ClassVar = True
    by_text: ClassVar = True
    window_size: int

    def __post_init__(self) -> None:
        at_least(self, 8, "window_size")

    def cases(self, plan: TaskPlan) -> list[InsideCase]:
        """One for each window of text, with the rows of each octave beyond `window_size`."""
        return [self._case(plan, number) for number in range(len(plan.windows))]

    def _case(self, plan: TaskPlan, number: int) -> InsideCase:
        ids = plan.text(number)
        octaves = [(start, end) for start, end in pairwise(plan.edges) if start >= self.window_size]
        rows = tuple(row for start, end in octaves for row in octave(self, plan, ids, start, end))
        return InsideCase(ids=ids, rows=rows, prefix=len(plan.encoder.prefix))

    def score(
        self, model: PreTrainedModel, cases: Sequence[InsideCase], *, chunk_size: int, progress: Progress = SILENT
    ) -> list[tuple[float, ...]]:
        """Nats a token."""
        losses = self._losses(model, stack(model, cases), cases[0].prefix, chunk_size, progress)
        scores = []
        for case, row_losses in zip(cases, losses, strict=True):
            values = tuple(row_losses[slice(*span(row))].mean().item() for row in case.rows)
            if wrong := [row.length for row, value in zip(case.rows, values, strict=True) if not math.isfinite(value)]:
                raise LongreachError(f"the loss is not a finite number at length {wrong[0]}; load the model with another dtype (float32)")
            scores.append(values)
        return scores

    def _losses(self, model: PreTrainedModel, ids: Tensor, prefix: int, chunk_size: int, progress: Progress) -> Tensor:
        """[B, T] float64: the loss of each token from number `window_size` + 1 on; nan before."""
        losses = torch.full(ids.shape, math.nan, dtype=torch.float64)
        step = max(1, (self.window_size - prefix) // 2)
        progress.advance(ids.shape[0] * min(self.window_size, ids.shape[1]))
        for start in range(self.window_size, ids.shape[1], step):
            end = min(start + step, ids.shape[1])
            piece = torch.cat([ids[:, :prefix], ids[:, max(prefix, end - self.window_size + prefix) : end]], dim=1)
            losses[:, start:end] = token_losses(model, piece, chunk_size=chunk_size)[:, start - end :]
            progress.advance(ids.shape[0] * (end - start))
        return losses


METHOD = LossInside
EXAMPLES = (LossInside(window_size=64),)
BAD = ({"window_size": 7},)
