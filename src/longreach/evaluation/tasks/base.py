"""The contract of tasks: what they ask of texts that are read once for all, or cases of their own and how a batch of them is scored."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.core.errors import InputError
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.decoding.encoder import Encoder
from longreach.evaluation.readings import TextReading
from longreach.evaluation.rows import Row
from longreach.evaluation.text import Ids


class NoRoom(InputError):  # noqa: N818 - whoever can do without the task goes on
    """No length of a plan holds what the task asks. Args: least: the length that would, where it is known."""

    def __init__(self, message: str, least: int = 0) -> None:
        super().__init__(message)
        self.least = least


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """What tasks make their cases from.

    Args: encoder: of the model's tokenizer. edges: lengths in tokens, ascending: the trained window's octaves and those beyond. asked:
    those at which something is asked. windows: real text, each of the longest length less the encoder's prefix. depths: 0 to 1. samples: of
    each depth and length (and text, where one is asked many questions); None: as many as the task takes. row: what all rows have in common.
    """

    encoder: Encoder
    edges: tuple[int, ...]
    asked: frozenset[int]
    windows: tuple[Ids, ...]
    depths: tuple[float, ...]
    samples: int | None
    seed: int
    row: Row

    def text(self, number: int) -> Ids:
        """The window of that number as the model reads it: with the encoder's prefix, to the last edge."""
        ids = np.concatenate([np.array(self.encoder.prefix, dtype=np.int32), self.windows[number]])
        return ids[: self.edges[-1]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input and the rows that it answers.

    Args: ids: all that the model reads. written: tokens that it generates after them. share: of all cases of its cell those up to it.
    """

    ids: Ids
    rows: tuple[Row, ...]
    written: int = 0
    share: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Task(Method):
    """Something to measure. `options`: the settings of a plan that its cases depend on, of windows, depths, samples and seed.

    `fewest_windows`: windows of real text that it needs (0: it needs no text). `in_pieces`: the model reads no more than a window at once.
    `only_reads`: nothing follows the text that could be answered from what is kept of it.

    A task `reads_once` where its `readings` say what it asks of each window of text, so that one pass over it serves all such tasks; others
    have `cases`. `by_text`: a case is one window. `reads_ids`: it has the one or the other, which `measure` takes; tasks that have neither
    ask in plain text (evaluation/text_task.py), as do some of those that have.
    """

    kind: ClassVar[str] = "task"
    options: ClassVar[frozenset[str]] = frozenset()
    fewest_windows: ClassVar[int] = 0
    in_pieces: ClassVar[bool] = False
    only_reads: ClassVar[bool] = False
    by_text: ClassVar[bool] = False
    reads_ids: ClassVar[bool] = True

    @property
    def reads_once(self) -> bool:
        """Whether it shares readings with others."""
        return False

    def reading(self, plan: TaskPlan, number: int) -> TextReading:
        """What it asks of the window of that number."""
        raise NotImplementedError(f"{self.name()} has cases")

    def cases(self, plan: TaskPlan) -> Sequence[Case]:
        """Every case, by length, or by window where it goes `by_text`. Each can be measured without the others."""
        raise NotImplementedError(f"{self.name()} has readings")

    def score(
        self, model: PreTrainedModel, cases: Sequence[Any], *, chunk_size: int, progress: Progress = SILENT
    ) -> list[tuple[float, ...]]:
        """For each case one score for each of its rows. The cases are this task's own, with equally many ids.

        Raises: LongreachError where the model's logits are not finite.
        """
        raise NotImplementedError(f"{self.name()} has readings")

    def row(self, plan: TaskPlan, ids: Ids, *, extra: Any = None, **values: Any) -> Row:
        """A row of this task to be measured on `ids`; `extra` is what else the case hangs on. `settings` add to the plan's."""
        digest = hashlib.sha256(ids.tobytes() + repr(extra).encode()).hexdigest()[:16]
        settings = {**plan.row.settings, **values.pop("settings"), "input": digest}
        return replace(plan.row, task=self.spec, settings=settings, **values)


def stack(model: PreTrainedModel, cases: Sequence[Case]) -> Tensor:
    """The ids of cases of one length as [B, T] on the model's device."""
    return torch.stack([torch.from_numpy(case.ids) for case in cases]).long().to(model.device)
