"""What the rows say: means with intervals, the rise of the loss beyond the trained window, and the usable length."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, harmonic_mean

from longreach.core.errors import InputError
from longreach.evaluation.intervals import Interval, mean_interval, share_interval
from longreach.evaluation.rows import Row

THRESHOLD = 0.9
METRIC = "likelihood"
LOSS = "loss"  # the task whose rise counts


@dataclass(frozen=True, kw_only=True)
class UsableLength:
    """How far a model can be used, in tokens; None for what was not measured, 0 where even the shortest length failed.

    Args: by_loss: longest length up to which the loss has nowhere risen. by_retrieval: longest up to which every retrieval task keeps to
    the threshold. both: the smaller. measured_to: the longest length measured. risen_at: the first length where the loss has risen, by
    `rise` above that inside the window. missed_at: the first length where retrieval falls short; `misses`: each failing task's score there.
    """

    trained_window: int
    measured_to: int
    by_loss: int | None
    by_retrieval: int | None
    both: int | None
    risen_at: int | None
    rise: Interval | None
    missed_at: int | None
    misses: dict[str, float]
    tasks: tuple[str, ...]
    metric: str = METRIC
    threshold: float = THRESHOLD


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One row for each cell (all that determines the score but the input), in the order of the first: mean, interval, n, speed, memory.

    The interval is over windows for the loss, for the tokens of a window are not independent; Wilson's for shares of right answers.
    """
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cell = replace(row, settings={key: value for key, value in row.settings.items() if key != "input"})
        cells.setdefault(cell.identity, []).append(cell)
    return [_summary(cell) for cell in cells.values()]


def loss_rises(rows: Sequence[Row], trained_window: int) -> dict[int, Interval]:
    """For each octave beyond the trained window (by its end): loss less that of the last octave inside, paired over the windows."""
    losses: dict[int, dict[str, float]] = {}  # length -> window -> loss
    for row in rows:
        if row.task == LOSS:
            losses.setdefault(row.length, {})[row.settings["input"]] = _score(row)
    if not losses:
        return {}
    if trained_window not in losses:
        raise InputError(f"no loss was measured up to the trained window of {trained_window} tokens")
    inside = losses[trained_window]
    return {
        length: mean_interval([loss - inside[window] for window, loss in losses[length].items()])
        for length in sorted(losses)
        if length > trained_window
    }


def retrieval_scores(rows: Sequence[Row], metric: str = METRIC) -> dict[int, dict[str, float]]:
    """length -> task -> share of right answers over all depths and samples, by length."""
    chosen = sorted((row for row in rows if row.settings["metric"] == metric), key=_length_and_task)
    scores: dict[int, dict[str, float]] = {}
    for (length, task), group in groupby(chosen, key=_length_and_task):
        scores.setdefault(length, {})[task] = fmean(_score(row) for row in group)
    return scores


def usable_length(rows: Sequence[Row], trained_window: int, *, threshold: float = THRESHOLD, metric: str = METRIC) -> UsableLength:
    """The usable length of one model under one method.

    The loss has risen where the 95 % interval of its difference to the loss inside the trained window lies above 0. Retrieval is good
    where every task's share of right answers (`metric`: likelihood or generation) is at least `threshold`. A length counts if all the
    shorter ones do.

    Raises: InputError for rows of several models or methods, or none.
    """
    if not rows:
        raise InputError("nothing was measured")
    if len({(row.model, row.method, row.settings.get("weights")) for row in rows}) != 1:
        raise InputError("a usable length is that of one model under one method")
    rises, scores = loss_rises(rows, trained_window), retrieval_scores(rows, metric)
    risen_at = next((length for length, rise in rises.items() if rise.low > 0), None)
    misses = {length: {task: score for task, score in of.items() if score < threshold} for length, of in scores.items()}
    missed_at = next((length for length, failing in misses.items() if failing), None)
    has_loss = any(row.task == LOSS for row in rows)
    by_loss = _longest_below(risen_at, [trained_window, *rises]) if has_loss else None
    by_retrieval = _longest_below(missed_at, scores) if scores else None
    return UsableLength(
        trained_window=trained_window,
        measured_to=max(row.length for row in rows),
        by_loss=by_loss,
        by_retrieval=by_retrieval,
        both=None if by_loss is None or by_retrieval is None else min(by_loss, by_retrieval),
        risen_at=risen_at,
        rise=None if risen_at is None else rises[risen_at],
        missed_at=missed_at,
        misses={} if missed_at is None else misses[missed_at],
        tasks=tuple(sorted({task for of in scores.values() for task in of})),
        metric=metric,
        threshold=threshold,
    )


def _longest_below(limit: int | None, lengths: Iterable[int]) -> int:
    return max((length for length in lengths if limit is None or length < limit), default=0)


def _summary(cell: Sequence[Row]) -> Row:
    scores = [_score(row) for row in cell]
    share = cell[0].settings["metric"] != "loss"
    interval = share_interval(sum(scores), len(scores)) if share else mean_interval(scores)
    return replace(
        cell[0],
        score=interval.mean,
        low=interval.low if math.isfinite(interval.low) else None,
        high=interval.high if math.isfinite(interval.high) else None,
        n=len(cell),
        tokens_per_s=harmonic_mean([row.tokens_per_s or 0.0 for row in cell]),
        peak_bytes=max(row.peak_bytes or 0 for row in cell),
    )


def _length_and_task(row: Row) -> tuple[int, str]:
    return row.length, row.task


def _score(row: Row) -> float:
    if row.score is None:
        raise InputError(f"a row of {row.task} at length {row.length} was not measured")
    return row.score
