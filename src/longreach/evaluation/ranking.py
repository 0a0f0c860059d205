"""Ranks methods that were asked the same questions, and says where a difference is noise.

Source: A Controlled Study on Long Context Extension and Generalization in LLMs, 2024, arXiv:2409.12181 (one base, one set of data, one
budget for all methods); the paired bootstrap of Koehn, Statistical significance tests for machine translation evaluation, 2004, with the
expanded intervals of Hesterberg, What teachers should know about the bootstrap, 2015, arXiv:1411.5279, for few passages.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from longreach.evaluation.course import LIKELIHOOD
from longreach.evaluation.intervals import Interval, t_quantile
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Row

_DRAWS = 2_000
_LOW, _HIGH = 2.5, 97.5  # percent
_CERTAIN = 1 - 1e-9  # chance that leaves nothing to show

CellKey = tuple[str, int]  # task, length
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A method among others.

    Args: method: spec ("" is the model as it is). score: mean over tasks and lengths, above chance, with its 95 % interval. behind: by how
    much the first one is better, on the same passages; None for the first. by_length: the mean over tasks at each length.
    """

    method: str
    score: Interval
    behind: Interval | None
    by_length: Mapping[int, float]

    @property
    def is_noise(self) -> bool:
        """Whether it cannot be told from the first."""
        return self.behind is not None and self.behind.low <= 0


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Args: ranks: from the best to the worst. tasks: that count, by their specs, with the metric that each is judged by. at_chance: tasks
    in which no method is above chance at the shortest length, so that they tell nothing. passages: that all methods were asked about."""

    ranks: tuple[Rank, ...]
    tasks: Mapping[str, str]
    at_chance: tuple[str, ...]
    passages: int


def rank(rows: Iterable[Row], *, seed: int = 0) -> Ranking:
    """Rank the methods among rows of text tasks by the passages that all of them were asked about."""
    rows = [row for row in rows if "passage" in row.settings and row.score is not None]
    methods = list(dict.fromkeys(row.method for row in rows))
    judged, at_chance = _judged(rows)
    cells = _cells([row for row in rows if judged.get(row.task) == row.settings["metric"]], methods)
    cells = {key: scores for key, scores in cells.items() if scores.shape[1]}
    if not cells:
        return Ranking(ranks=(), tasks=judged, at_chance=at_chance, passages=0)
    drawn = _drawn(list(cells.values()), seed)
    means = np.mean([scores.mean(1) for scores in cells.values()], axis=0)
    wider = _expansion(min(scores.shape[1] for scores in cells.values()))
    order = sorted(range(len(methods)), key=lambda at: (-means[at], at))
    best = order[0]
    ranks = tuple(
        Rank(
            method=methods[at], score=_interval(float(means[at]), drawn[at], wider),
            behind=None if at == best else _interval(float(means[best] - means[at]), drawn[best] - drawn[at], wider),
            by_length=_by_length(cells, at),
        )
        for at in order
    )  # fmt: skip
    return Ranking(ranks=ranks, tasks=judged, at_chance=at_chance, passages=sum(scores.shape[1] for scores in cells.values()))


def _judged(rows: Sequence[Row]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Task -> metric: what is written, or likelihood, where nothing written is above chance under any method; and tasks without either."""
    shortest = {task: min(row.length for row in rows if row.task == task) for task in dict.fromkeys(row.task for row in rows)}
    able = {
        (mark.task, mark.metric)
        for mark in marks(row for row in rows if row.length == shortest[row.task])
        if mark.above_chance
    }  # fmt: skip
    judged, at_chance = {}, []
    for task in shortest:
        written = [metric for name, metric in sorted(able) if name == task and metric != LIKELIHOOD]
        found = [*written, *([LIKELIHOOD] if (task, LIKELIHOOD) in able else [])]
        if found:
            judged[task] = found[0]
        else:
            at_chance.append(task)
    return judged, tuple(at_chance)


def _cells(rows: Sequence[Row], methods: Sequence[str]) -> dict[CellKey, Scores]:
    """For each task and length [methods, passages]: the mean mark above chance of the passages that all methods have."""
    found: dict[CellKey, dict[int, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for row in rows:
        chance = min(row.settings["chance"], _CERTAIN)
        score = ((row.score or 0.0) - chance) / (1 - chance)
        found[row.task, row.length][row.settings["passage"]][row.method].append(score)
    cells = {}
    for key, passages in found.items():
        whole = [by_method for by_method in passages.values() if len(by_method) == len(methods)]
        scores = [[fmean(by_method[method]) for by_method in whole] for method in methods]
        cells[key] = np.array(scores, dtype=np.float64).reshape(len(methods), len(whole))
    return cells


def _drawn(cells: Sequence[Scores], seed: int) -> Scores:
    """[methods, draws]: the mean over cells, of passages that are drawn with replacement, the same ones for all methods."""
    rng = np.random.default_rng(seed)
    total = np.zeros((cells[0].shape[0], _DRAWS))
    for scores in cells:
        counts = rng.multinomial(scores.shape[1], np.full(scores.shape[1], 1 / scores.shape[1]), size=_DRAWS)
        total += scores @ counts.T / scores.shape[1]
    return total / len(cells)


def _expansion(passages: int) -> float:
    """What a percentile interval has to be widened by to hold for few passages: Student's t for the normal, n - 1 for n."""
    if passages < 2:
        return math.inf
    return t_quantile(passages - 1) / NormalDist().inv_cdf(0.975) * math.sqrt(passages / (passages - 1))


def _interval(mean: float, drawn: Scores, wider: float) -> Interval:
    low, high = np.percentile(drawn, [_LOW, _HIGH])
    return Interval(mean, mean + _times(float(low) - mean, wider), mean + _times(float(high) - mean, wider))


def _times(away: float, wider: float) -> float:
    return away * wider if away or math.isfinite(wider) else 0.0


def _by_length(cells: Mapping[CellKey, Scores], at: int) -> dict[int, float]:
    lengths = sorted({length for _, length in cells})
    return {length: fmean(float(scores[at].mean()) for (_, of), scores in cells.items() if of == length) for length in lengths}


def as_json(ranking: Ranking) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "tasks": dict(ranking.tasks), "at_chance": list(ranking.at_chance), "passages": ranking.passages,
        "ranks": [
            {
                "method": one.method, "score": one.score._asdict(), "behind": None if one.behind is None else one.behind._asdict(),
                "noise": one.is_noise, "by_length": {str(length): score for length, score in one.by_length.items()},
            }
            for one in ranking.ranks
        ],
    }  # fmt: skip
