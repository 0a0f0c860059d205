"""What a model loses without some of its heads, against as many random ones."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.analysis.heads import random_heads
from longreach.analysis.single_heads import Head, without_heads
from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.engine.examine import examine
from longreach.evaluation.cells import Stopping
from longreach.evaluation.intervals import Interval, mean_interval
from longreach.evaluation.measure import measure
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.tasks.base import Task

_OF_TASKS = ("windows", "samples", "depths", "seed")  # what only some tasks take


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One thing that was measured. Args: task, metric, length: as in rows. start: of a loss, the tokens before its octave.

    plain: mean with all heads. chosen: the change without the chosen heads, paired over windows or prompts. drawn: the change without
    random heads, over the draws. Intervals are 95 %.
    """

    task: str
    metric: str
    length: int
    start: int | None
    plain: float
    chosen: Interval
    drawn: Interval


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Args: chosen: the heads under test. draws: the random ones, by seed. cells: what was measured. rows: all that it was made from."""

    chosen: tuple[Head, ...]
    draws: dict[int, tuple[Head, ...]]
    cells: tuple[Cell, ...]
    rows: tuple[Row, ...]


def ablate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Sequence[Head],
    others: Sequence[Head],
    *,
    to: int,
    trained_window: int,
    tasks: Sequence[Task],
    draws: int,
    seed: int = 0,
    rows: Rows | None = None,
    progress: Progress = SILENT,
    **measuring: Any,
) -> Ablation:
    """Measure the model whole, without the `chosen` heads, and without as many of the `others` for each of `draws` seeds from `seed` on.

    The loss is measured by position, retrieval at the length `to` only. Args: measuring: what else `measure` takes.
    Raises: InputError for fewer than two draws, which give no interval, or too few heads; what `measure` and `without_heads` raise.
    """
    if draws < 2:
        raise InputError(f"draws={draws} must be at least 2: one gives no interval")
    drawn = {number: tuple(random_heads(others, len(chosen), number)) for number in range(seed, seed + draws)}
    rows = Rows() if rows is None else rows
    attentions, settings = examine(model, trained_window), {"text": None, **measuring, "seed": seed}

    def run(heads: Sequence[Head]) -> list[Row]:
        found: list[Row] = []
        for task in tasks:
            used = {name: value for name, value in settings.items() if name not in _OF_TASKS or name in task.options}
            used |= {"text": settings["text"] if task.fewest_windows else None, "lengths": (to,) if "depths" in task.options else None}
            found += measure(
                model, tokenizer, to=to, tasks=[task], trained_window=trained_window, rows=rows, progress=progress,
                stopping=Stopping(early=False), settings={"ablated": " ".join(f"{layer}.{head}" for layer, head in sorted(heads))}, **used,
            )  # fmt: skip
        return found

    def without(heads: Sequence[Head]) -> list[Row]:
        with without_heads(model, attentions, heads):
            return run(heads)

    plain, top, random = run(()), without(chosen), [without(heads) for heads in drawn.values()]
    return Ablation(
        chosen=tuple(chosen),
        draws=drawn,
        cells=tuple(_cells(plain, top, random)),
        rows=(*plain, *top, *(row for of in random for row in of)),
    )


def _cells(plain: Sequence[Row], chosen: Sequence[Row], drawn: Sequence[Sequence[Row]]) -> list[Cell]:
    """One cell for each task, metric and length; rows of one input belong together."""
    cells: dict[tuple[str, str, int, int | None], list[Row]] = {}
    for row in plain:
        cells.setdefault((row.task, row.settings["metric"], row.length, row.settings.get("start")), []).append(row)
    scores = [{_place(row): row.score or 0.0 for row in of} for of in (chosen, *drawn)]
    found = []
    for (task, metric, length, start), of in cells.items():
        changes = [[left[_place(row)] - (row.score or 0.0) for row in of] for left in scores]
        found.append(
            Cell(
                task=task, metric=metric, length=length, start=start, plain=fmean(row.score or 0.0 for row in of),
                chosen=mean_interval(changes[0]), drawn=mean_interval([fmean(change) for change in changes[1:]]),
            )
        )  # fmt: skip
    return found


def _place(row: Row) -> str:
    """What a row measures, whatever the heads."""
    settings = {key: value for key, value in row.settings.items() if key != "ablated"}
    return replace(row, settings=settings).identity
