"""What the rows of text tasks come to: a mean with its interval for every task, metric and length, and whether it is more than chance."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from longreach.evaluation.intervals import Interval, mean_interval, share_interval
from longreach.evaluation.rows import Row


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Of one task, metric and length under one method.

    Args: interval: of the mean, 95 %. n: questions that were answered. passages: that they are about. chance: mean mark of guesses. failed:
    questions that got no answer, which count for nothing else.
    """

    task: str
    metric: str
    method: str
    length: int
    interval: Interval
    n: int
    passages: int
    chance: float
    failed: int = 0

    @property
    def above_chance(self) -> bool:
        """Whether it can be told from guessing."""
        return self.interval.low > self.chance


def marks(rows: Iterable[Row]) -> list[Mark]:
    """One for each task, metric, method and length, in the order of the rows."""
    groups: dict[tuple[str, str, str, int], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.task, row.settings["metric"], row.method, row.length].append(row)
    return [_mark(*key, group) for key, group in groups.items()]


def _mark(task: str, metric: str, method: str, length: int, rows: Sequence[Row]) -> Mark:
    scored = [row for row in rows if row.score is not None and not row.failed]
    groups: dict[int, list[float]] = defaultdict(list)
    for row in scored:
        groups[row.settings["passage"]].append(row.score or 0.0)
    return Mark(
        task=task, metric=metric, method=method, length=length, interval=clustered_interval(list(groups.values())), n=len(scored),
        passages=len(groups), chance=fmean(row.settings["chance"] for row in rows), failed=len(rows) - len(scored),
    )  # fmt: skip


def clustered_interval(groups: Sequence[Sequence[float]]) -> Interval:
    """Mean of marks from 0 to 1 with its 95 % interval, where those of one passage may be alike.

    Right or wrong: Wilson's interval for as many questions as they are worth, by their correlation within passages (design effect, Kish,
    Survey Sampling, 1965). Other marks: Student's t over the means of passages, each weighted alike.
    """
    values = [value for group in groups for value in group]
    if not values:
        return Interval(0.0, 0.0, 1.0)
    if set(values) <= {0.0, 1.0}:
        effective = len(values) / _design_effect(groups)
        return share_interval(fmean(values) * effective, effective)
    found = mean_interval([fmean(group) for group in groups])
    return Interval(fmean(values), max(0.0, found.low), min(1.0, found.high))


def _design_effect(groups: Sequence[Sequence[float]]) -> float:
    """1 where the marks of a passage are as different as those of several, up to the questions of a passage where they are all alike."""
    count, total = len(groups), sum(map(len, groups))
    size = total / count
    if count < 2 or size <= 1:
        return 1.0
    mean = fmean(value for group in groups for value in group)
    between = sum(len(group) * (fmean(group) - mean) ** 2 for group in groups) / (count - 1)
    within = sum((value - fmean(group)) ** 2 for group in groups for value in group) / max(1, total - count)
    if between + (size - 1) * within == 0:
        return 1.0
    correlation = (between - within) / (between + (size - 1) * within)
    return 1 + (size - 1) * min(1.0, max(0.0, correlation))
