"""How far a model can be used, ability by ability: what a card is drawn from.

The bar is that of NoLiMa (arXiv:2502.05167): a length is usable where a model keeps 85 % of its own score on short texts. Here the whole
95 % interval has to keep to it, and scores are counted above chance: 0 is guessing, 1 is everything right.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from longreach.core.spec import parse
from longreach.evaluation.course import LIKELIHOOD
from longreach.evaluation.intervals import Interval
from longreach.evaluation.marks import Mark, marks
from longreach.evaluation.rows import Row
from longreach.evaluation.text_task import ABILITIES, Ability, TextTask
from longreach.evaluation.usable import KEEPS

_DEPTHS = 5  # parts of a text that scores are told apart by
_CERTAIN = 1 - 1e-9  # chance that leaves nothing to show


@dataclass(frozen=True, kw_only=True)
class TaskCurve:
    """A task at all lengths. Args: metric: that it is judged by. marks: by length, as they are. chance: of guessing. judged: whether its
    score at the shortest length is above chance; where it is not, it says nothing of longer ones."""

    task: str
    ability: Ability
    metric: str
    marks: tuple[Mark, ...]
    judged: bool

    @property
    def chance(self) -> float:
        """Of guessing, over all lengths."""
        return fmean(mark.chance for mark in self.marks)


@dataclass(frozen=True, kw_only=True)
class AbilityScore:
    """An ability at one length. Args: score: above chance, 1 is everything right, with its interval. n: questions."""

    length: int
    score: Interval
    n: int


@dataclass(frozen=True, kw_only=True)
class AbilityCurve:
    """An ability at all lengths.

    Args: steps: the mean over the tasks that it is judged by; none where all are at chance. usable: the longest length up to which all
    keeps to the bar, the shortest one, which sets it, at least; None where nothing is judged. missed_at: the first length that falls short
    for certain. tasks: that it is judged by. at_chance: those that say nothing of this model.
    """

    ability: Ability
    steps: tuple[AbilityScore, ...]
    usable: int | None
    missed_at: int | None
    tasks: tuple[str, ...]
    at_chance: tuple[str, ...]

    @property
    def bar(self) -> float:
        """The score that has to be kept."""
        return KEEPS * self.steps[0].score.mean if self.steps else math.nan


@dataclass(frozen=True, kw_only=True)
class Depths:
    """Scores of literal tasks by where the answer stands: for a heat map, and over all lengths. Args: score: (depth, length) -> mean."""

    depths: tuple[float, ...]
    lengths: tuple[int, ...]
    score: Mapping[tuple[float, int], float]
    profile: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Card:
    """A model under a method ("": as it is). Args: speed: (length, tokens a second, peak bytes or None) of passages and their questions."""

    model: str
    method: str
    unit: str
    lengths: tuple[int, ...]
    abilities: tuple[AbilityCurve, ...]
    tasks: tuple[TaskCurve, ...]
    depths: Depths | None
    speed: tuple[tuple[int, float, int | None], ...]
    failed: int


def cards(rows: Iterable[Row]) -> list[Card]:
    """A card for each model and method among the rows of text tasks."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if "passage" in row.settings:
            groups[row.model, row.method, row.settings["units"]].append(row)
    return [_card(*key, group) for key, group in groups.items()]


def _card(model: str, method: str, unit: str, rows: Sequence[Row]) -> Card:
    curves = [_task(task, [row for row in rows if row.task == task]) for task in dict.fromkeys(row.task for row in rows)]
    abilities = tuple(
        ability_curve(ability, of) for ability in ABILITIES if (of := [curve for curve in curves if curve.ability == ability])
    )
    return Card(
        model=model, method=method, unit=unit, lengths=tuple(sorted({row.length for row in rows})), abilities=abilities,
        tasks=tuple(curves), depths=_depths(rows, curves), speed=_speed(rows), failed=sum(bool(row.failed) for row in rows),
    )  # fmt: skip


def _task(spec: str, rows: Sequence[Row]) -> TaskCurve:
    """Judged by what was written, or, where that is at chance on the shortest texts, by the likelihood of choices."""
    (task,) = parse(spec, acts_on="measurement")
    if not isinstance(task, TextTask):
        raise TypeError(f"{spec} asks nothing in plain text")
    found = marks(rows)
    by_metric = {
        metric: tuple(sorted((mark for mark in found if mark.metric == metric), key=lambda mark: mark.length))
        for metric in dict.fromkeys(mark.metric for mark in found)
    }
    metric = task.metric if task.metric in by_metric else next(iter(by_metric))
    if LIKELIHOOD in by_metric and not by_metric[metric][0].above_chance:
        metric = LIKELIHOOD
    return TaskCurve(
        task=spec, ability=task.ability, metric=metric, marks=by_metric[metric], judged=by_metric[metric][0].above_chance
    )  # fmt: skip


def ability_curve(ability: Ability, curves: Sequence[TaskCurve]) -> AbilityCurve:
    """What the tasks of an ability come to, at the lengths that all of them have."""
    judged = [curve for curve in curves if curve.judged]
    at_chance = tuple(curve.task for curve in curves if not curve.judged)
    if not judged:
        return AbilityCurve(ability=ability, steps=(), usable=None, missed_at=None, tasks=(), at_chance=at_chance)
    lengths = sorted(set.intersection(*({mark.length for mark in curve.marks if mark.n} for curve in judged)))
    steps = tuple(_step(length, [next(mark for mark in curve.marks if mark.length == length) for curve in judged]) for length in lengths)
    usable, missed_at = _usable(steps)
    names = tuple(curve.task for curve in judged)
    return AbilityCurve(ability=ability, steps=steps, usable=usable, missed_at=missed_at, tasks=names, at_chance=at_chance)


def _step(length: int, of: Sequence[Mark]) -> AbilityScore:
    """The mean of tasks, which are measured apart from one another."""
    scores = [above_chance(mark) for mark in of]
    mean = fmean(score.mean for score in scores)
    down, up = (
        math.sqrt(sum(half**2 for half in halves)) / len(scores)
        for halves in ([score.mean - score.low for score in scores], [score.high - score.mean for score in scores])
    )
    return AbilityScore(length=length, score=Interval(mean, mean - down, mean + up), n=sum(mark.n for mark in of))


def above_chance(mark: Mark) -> Interval:
    """The mark where guessing counts 0 and everything right 1."""
    rest = 1 - min(mark.chance, _CERTAIN)
    return Interval(*((end - mark.chance) / rest for end in mark.interval))


def _usable(steps: Sequence[AbilityScore]) -> tuple[int, int | None]:
    usable, bar = (steps[0].length, KEEPS * steps[0].score.mean) if steps else (0, 0.0)
    for step in steps[1:]:
        if step.score.low < bar:
            break
        usable = step.length
    return usable, next((step.length for step in steps if step.score.high < bar), None)


def _depths(rows: Sequence[Row], curves: Sequence[TaskCurve]) -> Depths | None:
    """Of literal tasks that are judged and ask for one place."""
    metric_of = {curve.task: curve.metric for curve in curves if curve.judged and curve.ability == "literal"}
    cells: dict[tuple[float, int], list[float]] = defaultdict(list)
    for row in rows:
        if row.depth is not None and row.score is not None and metric_of.get(row.task) == row.settings["metric"]:
            part = min(_DEPTHS - 1, int(row.depth * _DEPTHS))
            cells[(part + 0.5) / _DEPTHS, row.length].append(row.score)
    if not cells:
        return None
    depths, lengths = (tuple(sorted({cell[place] for cell in cells})) for place in (0, 1))
    profile = tuple(fmean(score for (at, _), of in cells.items() if at == depth for score in of) for depth in depths)
    return Depths(
        depths=depths, lengths=tuple(int(length) for length in lengths), score={cell: fmean(of) for cell, of in cells.items()},
        profile=profile,
    )  # fmt: skip


def _speed(rows: Sequence[Row]) -> tuple[tuple[int, float, int | None], ...]:
    found = []
    for length in sorted({row.length for row in rows}):
        of = [row for row in rows if row.length == length]
        speeds = [row.tokens_per_s for row in of if row.tokens_per_s]
        peaks = [row.peak_bytes for row in of if row.peak_bytes]
        if speeds:
            found.append((length, median(speeds), max(peaks, default=None)))
    return tuple(found)


def as_json(card: Card) -> dict[str, Any]:
    """A card as plain JSON values, from which pages are drawn."""
    return {
        "model": card.model, "method": card.method, "unit": card.unit, "lengths": list(card.lengths), "failed": card.failed,
        "abilities": [
            {
                "ability": one.ability, "usable": one.usable, "missed_at": one.missed_at, "bar": one.bar if one.steps else None,
                "tasks": list(one.tasks), "at_chance": list(one.at_chance),
                "steps": [{"length": step.length, **step.score._asdict(), "n": step.n} for step in one.steps],
            }
            for one in card.abilities
        ],
        "tasks": [
            {
                "task": one.task, "ability": one.ability, "metric": one.metric, "chance": one.chance, "judged": one.judged,
                "marks": [
                    {"length": mark.length, **mark.interval._asdict(), "n": mark.n, "above_chance": mark.above_chance} for mark in one.marks
                ],
            }
            for one in card.tasks
        ],
        "depths": None if card.depths is None else {
            "depths": list(card.depths.depths), "lengths": list(card.depths.lengths), "profile": list(card.depths.profile),
            "scores": [[card.depths.score.get((depth, length)) for length in card.depths.lengths] for depth in card.depths.depths],
        },
        "speed": [{"length": length, "tokens_per_s": speed, "peak_bytes": peak} for length, speed, peak in card.speed],
    }  # fmt: skip
