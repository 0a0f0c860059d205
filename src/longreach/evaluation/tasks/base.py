"""The contract of tasks: cases that can be measured one by one, and how a batch of them is scored."""

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.evaluation.rows import Row
from longreach.evaluation.text import Encoder, Ids


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """What tasks make their cases from.

    Args: encoder: of the model's tokenizer. edges: lengths in tokens, ascending: the trained window's octaves and those beyond.
    windows: real text, each of the longest length less the encoder's prefix. depths: 0 to 1. samples: of each depth and length.
    row: what all rows have in common.
    """

    encoder: Encoder
    edges: tuple[int, ...]
    windows: tuple[Ids, ...]
    depths: tuple[float, ...]
    samples: int
    seed: int
    row: Row


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input and the rows that it answers. Args: ids: all that the model reads. written: tokens that it generates after them."""

    ids: Ids
    rows: tuple[Row, ...]
    written: int = 0


@dataclass(frozen=True, kw_only=True)
class Task(Method):
    """Something to measure. `options`: the settings of a plan that its cases depend on, of windows, depths, samples and seed.

    `fewest_windows`: windows of real text that it needs (0: it needs no text). `in_pieces`: the model reads no more than a window at once.
    `only_reads`: nothing follows the text that could be answered from what is kept of it.
    """

    kind: ClassVar[str] = "task"
    options: ClassVar[frozenset[str]] = frozenset()
    fewest_windows: ClassVar[int] = 0
    in_pieces: ClassVar[bool] = False
    only_reads: ClassVar[bool] = False

    @abstractmethod
    def cases(self, plan: TaskPlan) -> Sequence[Case]:
        """Every case, by length. Each can be measured without the others."""

    @abstractmethod
    def score(
        self, model: PreTrainedModel, cases: Sequence[Any], *, chunk_size: int, progress: Progress = SILENT
    ) -> list[tuple[float, ...]]:
        """For each case one score for each of its rows. The cases are this task's own, with equally many ids.

        Raises: LongreachError where the model's logits are not finite.
        """

    def row(self, plan: TaskPlan, ids: Ids, *, extra: Any = None, **values: Any) -> Row:
        """A row of this task to be measured on `ids`; `extra` is what else the case hangs on. `settings` add to the plan's."""
        digest = hashlib.sha256(ids.tobytes() + repr(extra).encode()).hexdigest()[:16]
        settings = {**plan.row.settings, **values.pop("settings"), "input": digest}
        return replace(plan.row, task=self.spec, settings=settings, **values)


def stack(model: PreTrainedModel, cases: Sequence[Case]) -> Tensor:
    """The ids of cases of one length as [B, T] on the model's device."""
    return torch.stack([torch.from_numpy(case.ids) for case in cases]).long().to(model.device)
