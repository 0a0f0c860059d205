"""What the rows say: means with intervals, the rise of the loss beyond the trained window, and the usable length."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from statistics import fmean, harmonic_mean
from typing import Any

from longreach.core.errors import InputError
from longreach.evaluation.intervals import (
    Interval,
    anytime_interval,
    block_interval,
    mean_interval,
    prompts_to_decide,
    reaches,
    texts_to_decide,
)
from longreach.evaluation.rows import Row, by_block, by_text, task_name

KEEPS = 0.85  # of the share of right answers inside the window (as NoLiMa has it, arXiv:2502.05167)
RECALLS = 0.5  # share of right answers inside the window below which retrieval says nothing of longer texts
RISE = 0.05  # nats a token
ROUNDING = 1e-9  # what equals a bar keeps to it
METRIC = "likelihood"
_INPUT = ("input", "text", "span")  # settings that tell what of the text a row is for
LOSS = "loss"  # the task whose rise counts
_THE_LOSS = "the loss"  # what is open where it is not a task
INSIDE = "loss_inside"  # the task that reads the same tokens inside the window


@dataclass(frozen=True, kw_only=True)
class Open:
    """What was measured leaves it open whether a length is reached.

    Args: length: the first such, in tokens. about: the loss, or the task. interval: of the rise, or of the share. n: texts, or prompts,
    that it is made of. needed: how many would tell, if nothing else changes; None: too many, or that cannot be said.
    """

    length: int
    about: str
    interval: Interval
    n: int
    needed: int | None

    def __str__(self) -> str:
        """What is open, and what would decide it."""
        of_loss, interval = self.about == _THE_LOSS, self.interval
        share, rise = f"{interval.low:.2f} to {interval.high:.2f}", f"{interval.mean:+.3f} ± {interval.high - interval.mean:.3f} nats"
        more = f"; about {self.needed} would tell" if self.needed else ""
        kind = ("text" if self.n == 1 else "texts") if of_loss else "questions"
        return f"undecided at {self.length}: {task_name(self.about)} is {rise if of_loss else share} with {self.n} {kind}{more}"


@dataclass(frozen=True, kw_only=True)
class UsableLength:
    """How far a model can be used, in tokens; None for what was not measured, 0 where not even the shortest length is reached.

    A length is reached where the whole 95 % interval of what was measured keeps to the bar, missed where all of it lies beyond, and open
    where the bar lies within. Retrieval has to keep to 85 % of what the model finds inside its window; where that is less than half, it
    says nothing. Args: by_loss: longest length up to which the loss has nowhere risen. by_retrieval: longest up to which every retrieval
    task keeps to its bar; None also where the model does not retrieve inside its window. both: the smaller, or the one. measured_to: the
    longest length measured. risen_at: the first length where the loss has risen, by `rise` above that inside the window. missed_at: the
    first length where retrieval falls short; `misses`: each failing task's score there. open_loss, open_retrieval: the first lengths where
    it cannot be told. short: of each retrieval task the share of right answers inside the window.
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
    open_loss: Open | None = None
    open_retrieval: Open | None = None
    short: dict[str, float]
    metric: str = METRIC

    def __str__(self) -> str:
        """In words, with both criteria."""
        return _sentence(self)

    def as_json(self) -> dict[str, Any]:
        """For programs; None stands for an end of an interval that is infinite."""
        found = {**_values(self), "rise": _interval(self.rise)}
        for name in ("open_loss", "open_retrieval"):
            one: Open | None = getattr(self, name)
            found[name] = None if one is None else {**_values(one), "interval": _interval(one.interval)}
        return found


class Measured(list[Row]):
    """The rows that were measured, of one model under one method.

    Args: trained_window: of the model, in tokens. open: whether another text would tell more that is of interest.
    """

    def __init__(self, rows: Iterable[Row], trained_window: int, *, open: bool = False) -> None:  # noqa: A002 - what it is
        super().__init__(rows)
        self.trained_window, self.open = trained_window, open

    @property
    def usable(self) -> UsableLength:
        """How far the model can be used; printed, it says so in words."""
        return usable_length(self, self.trained_window)


def _values(record: Any) -> dict[str, Any]:
    """A dataclass as a dict, its values as they are."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _interval(interval: Interval | None) -> dict[str, float | None] | None:
    if interval is None:
        return None
    return {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One row for each cell (all that determines the score but the input), in the order of the first: mean, interval, n, speed, memory.

    The interval is over blocks of text for the loss; for shares of right answers it is one that holds whenever measuring stops.
    """
    cells: dict[str, list[Row]] = {}
    for row in rows:
        cell = replace(row, settings={key: value for key, value in row.settings.items() if key not in _INPUT})
        cells.setdefault(cell.identity, []).append(cell)
    return [_summary(cell) for cell in cells.values()]


def loss_rises(rows: Sequence[Row], trained_window: int) -> dict[int, Interval]:
    """For each octave beyond the trained window (by its end): the rise of the loss, paired over blocks of text.

    It is the rise above the loss on the same tokens read inside the window, where that was measured (`loss_inside`); else above that of the
    last octave inside, whose tokens are others, paired over the texts. Empty where no loss was measured up to the window.
    """
    return {length: rise for length, (rise, _) in _rises(rows, trained_window).items()}


def _rises(rows: Sequence[Row], trained_window: int) -> dict[int, tuple[Interval, int]]:
    """With the number of texts."""
    losses, same = (_by_length(row for row in rows if row.task == task) for task in (LOSS, f"{INSIDE}:window_size={trained_window}"))
    inside = losses.get(trained_window)
    found = {}
    for length in sorted(length for length in losses if length > trained_window):
        blocks = by_block(losses[length])
        standard = by_block(same.get(length, ()))
        if blocks.keys() <= standard.keys():
            found[length] = block_interval([loss - standard[block] for block, loss in blocks.items()]), len({text for text, _ in blocks})
        elif inside is not None:
            within, beyond = by_text(inside), by_text(losses[length])
            if beyond.keys() <= within.keys():
                found[length] = mean_interval([loss - within[text] for text, loss in beyond.items()]), len(beyond)
    return found


def _by_length(rows: Iterable[Row]) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.length, []).append(row)
    return found


def retrieval_scores(rows: Sequence[Row], metric: str = METRIC) -> dict[int, dict[str, float]]:
    """length -> task -> share of right answers over all depths and samples, by length."""
    chosen = sorted((row for row in rows if row.settings["metric"] == metric), key=_length_and_task)
    scores: dict[int, dict[str, float]] = {}
    for (length, task), group in groupby(chosen, key=_length_and_task):
        scores.setdefault(length, {})[task] = fmean(_score(row) for row in group)
    return scores


def short_scores(rows: Sequence[Row], trained_window: int, metric: str = METRIC) -> dict[str, float]:
    """Of each retrieval task the share of right answers at all lengths inside the window; 1 where none of them was measured."""
    inside: dict[str, list[float]] = {row.task: [] for row in rows if row.settings["metric"] == metric}
    for row in rows:
        if row.settings["metric"] == metric and row.length <= trained_window:
            inside[row.task].append(_score(row))
    return {task: fmean(scores) if scores else 1.0 for task, scores in sorted(inside.items())}


def usable_length(rows: Sequence[Row], trained_window: int, *, metric: str = METRIC) -> UsableLength:
    """The usable length of one model under one method.

    The loss keeps to its bar where it rises by at most RISE, retrieval where every task's share of right answers (`metric`: likelihood or
    generation) is at least 85 % of that inside the window; by all of their intervals. A length counts if all the shorter ones do.

    Raises: InputError for rows of several models or methods, or none.
    """
    if not rows:
        raise InputError("nothing was measured")
    if len({(row.model, row.method, row.settings.get("weights")) for row in rows}) != 1:
        raise InputError("a usable length is that of one model under one method")
    by_loss, risen_at, open_loss = _by_loss(rows, trained_window)
    short = short_scores(rows, trained_window, metric)
    recalls = min(short.values(), default=0.0) >= RECALLS
    by_retrieval, misses, open_retrieval = _by_retrieval(rows, short, trained_window, metric) if recalls else (None, {}, None)
    measured = [length for length in (by_loss, by_retrieval) if length is not None]
    return UsableLength(
        trained_window=trained_window,
        measured_to=max(row.length for row in rows),
        by_loss=by_loss,
        by_retrieval=by_retrieval,
        both=min(measured) if len(measured) == 2 or (measured and short and not recalls) else None,
        risen_at=risen_at,
        rise=None if risen_at is None else loss_rises(rows, trained_window)[risen_at],
        missed_at=min(misses, default=None),
        misses=misses[min(misses)] if misses else {},
        open_loss=open_loss,
        open_retrieval=open_retrieval,
        short=short,
        metric=metric,
    )


def _by_loss(rows: Sequence[Row], trained_window: int) -> tuple[int | None, int | None, Open | None]:
    """The longest length reached, the first that is missed, and the first that is open, by the loss."""
    inside = [row.length for row in rows if row.task == LOSS and row.length <= trained_window]
    if not inside:
        return None, None, None
    reached, risen_at, undecided = max(inside), None, None
    for length, (rise, count) in _rises(rows, trained_window).items():
        if rise.low > RISE + ROUNDING:
            risen_at = length
            break
        if rise.high > RISE + ROUNDING and undecided is None:
            needed = texts_to_decide(rise, count, RISE)
            undecided = Open(length=length, about=_THE_LOSS, interval=rise, n=count, needed=needed)
        reached = length if undecided is None else reached
    return reached, risen_at, undecided


def _by_retrieval(
    rows: Sequence[Row], short: Mapping[str, float], trained_window: int, metric: str
) -> tuple[int | None, dict[int, dict[str, float]], Open | None]:
    """The longest length reached, what is missed at the first length that is, and what is open at the first length that is."""
    chosen = sorted((row for row in rows if row.settings["metric"] == metric), key=_length_and_task)
    if not chosen:
        return None, {}, None
    reached: int = 0
    undecided: Open | None = None
    for length, of_length in groupby(chosen, key=lambda row: row.length):
        misses: dict[str, float] = {}
        for task, of_task in groupby(of_length, key=lambda row: row.task):
            found = [_score(row) for row in of_task]
            bar = KEEPS * short[task]
            verdict, share = reaches(sum(found), len(found), bar), anytime_interval(sum(found), len(found))
            if verdict is False:
                misses[task] = share.mean
            elif verdict is None and undecided is None and length > trained_window:  # what is inside makes the bar
                needed = prompts_to_decide(share.mean, bar)
                undecided = Open(length=length, about=task, interval=share, n=len(found), needed=needed)
        if misses:
            return reached, {length: misses}, undecided
        reached = length if undecided is None else reached
    return reached, {}, undecided


def _summary(cell: Sequence[Row]) -> Row:
    scores = [_score(row) for row in cell]
    share = cell[0].settings["metric"] != "loss"
    interval = anytime_interval(sum(scores), len(scores)) if share else block_interval(scores)
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


def _sentence(usable: UsableLength) -> str:
    parts = []
    if usable.by_loss is not None:
        why = f"the loss has nowhere risen by more than {RISE} nats above that inside the trained window"
        if (rise := usable.rise) is not None:
            why = f"up to {usable.risen_at} it is {rise.mean:.3f} ± {rise.high - rise.mean:.3f} nats above that inside the trained window"
        why = str(usable.open_loss or why)
        parts.append(f"{_tokens(usable.by_loss, usable.measured_to)} by loss ({why})")
    if usable.by_retrieval is not None:
        bars = " and ".join(f"{task_name(task)} at least {KEEPS * score:.2f}" for task, score in usable.short.items())
        wanted = f"{bars} by {usable.metric}, {KEEPS:.0%} of that inside the window"
        if usable.misses:
            wanted += (
                f"; at {usable.missed_at} {' and '.join(f'{task_name(task)} is {score:.2f}' for task, score in usable.misses.items())}"
            )
        if usable.open_retrieval:
            wanted += f"; {usable.open_retrieval}"
        parts.append(f"{_tokens(usable.by_retrieval, usable.measured_to)} by retrieval ({wanted})")
    elif usable.short:
        found = " and ".join(f"{score:.2f} of {task_name(task)}" for task, score in usable.short.items())
        parts.append(f"retrieval says nothing, for inside its window the model finds only {found}")
    if usable.both is not None and usable.by_retrieval is not None:
        parts.append(f"{_tokens(usable.both, usable.measured_to)} by both")
    return f"Usable length: {', '.join(parts) or 'not measured; it takes loss, passkey or needle'}."


def _tokens(length: int, measured_to: int) -> str:
    if not length:
        return "no measured length"
    return f"at least {length} tokens" if length == measured_to else f"{length} tokens"
