"""Why two runs of the same tasks came to different numbers: what they were asked differently, and what they answered differently."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from longreach.evaluation.intervals import Interval, mean_interval, paired_share_interval
from longreach.evaluation.rows import Row

# What tells prompts apart and not runs, or follows from the prompt.
_OF_PROMPTS = {"input", "asked", "passage", "question", "metric", "prompt", "characters", "chance", "truncated"}
_SHOWN = 60  # characters of a value

CellKey = tuple[str, str, int]  # task, metric, length


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Two runs in one task, metric and length.

    Args: means: of either run, over what got an answer; None where nothing did. shared: questions that both were asked, word for word, and
    answered. only: questions that one of them was asked alone. failed: of either run. flips: of the shared ones, right in the first and
    wrong in the second, and the other way round (scores: higher in the first, and higher in the second). difference: second less first
    over shared questions, with its 95 % interval; None where there are none.
    """

    key: CellKey
    means: tuple[float | None, float | None]
    shared: int
    only: tuple[int, int]
    failed: tuple[int, int]
    flips: tuple[int, int]
    difference: Interval | None

    @property
    def is_noise(self) -> bool:
        """Whether the shared questions leave it open that the runs are equally good."""
        return self.difference is None or self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Args: settings: what differs in how the runs were made: name -> values in either, as JSON. cells: by task, metric and length."""

    settings: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    cells: tuple[Parity, ...]
    alone: tuple[tuple[CellKey, ...], tuple[CellKey, ...]] = field(default=((), ()))


def parity(first: Iterable[Row], second: Iterable[Row]) -> Comparison:
    """Hold the rows of text tasks of two runs against each other."""
    runs = [[row for row in rows if "passage" in row.settings] for rows in (first, second)]
    cells = [_cells(rows) for rows in runs]
    both = [key for key in cells[0] if key in cells[1]]
    return Comparison(
        settings=_differing(*(_settings(rows) for rows in runs)),
        cells=tuple(_parity(key, cells[0][key], cells[1][key]) for key in both),
        alone=(tuple(key for key in cells[0] if key not in cells[1]), tuple(key for key in cells[1] if key not in cells[0])),
    )


def _cells(rows: Sequence[Row]) -> dict[CellKey, list[Row]]:
    found: dict[CellKey, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.task, row.settings["metric"], row.length].append(row)
    return found


def _settings(rows: Sequence[Row]) -> dict[str, set[str]]:
    """Everything but the prompts that determines a score: name -> all its values."""
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        own = {name: value for name, value in row.settings.items() if name not in _OF_PROMPTS}
        for name, value in {"model": row.model, "method": row.method, "seed": row.seed, "version": row.version, **own}.items():
            found[name].add(_shown(value))
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _differing(first: Mapping[str, set[str]], second: Mapping[str, set[str]]) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    names = [*first, *(name for name in second if name not in first)]
    pairs = {name: (first.get(name, set()), second.get(name, set())) for name in names}
    return {name: (tuple(sorted(one)), tuple(sorted(other))) for name, (one, other) in pairs.items() if one != other}


def _parity(key: CellKey, first: Sequence[Row], second: Sequence[Row]) -> Parity:
    scores = [_by_question(rows) for rows in (first, second)]
    shared = [question for question in scores[0] if question in scores[1]]
    pairs = [(scores[0][question], scores[1][question]) for question in shared]
    return Parity(
        key=key, means=(_mean(scores[0]), _mean(scores[1])), shared=len(shared),
        only=(len(scores[0]) - len(shared), len(scores[1]) - len(shared)),
        failed=(sum(bool(row.failed) for row in first), sum(bool(row.failed) for row in second)),
        flips=(sum(one > other for one, other in pairs), sum(other > one for one, other in pairs)),
        difference=paired_difference(pairs),
    )  # fmt: skip


def _by_question(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    """(passage, question) by their digests -> score."""
    return {(row.settings["input"], row.settings["asked"]): row.score for row in rows if row.score is not None}


def _mean(scores: Mapping[Any, float]) -> float | None:
    return fmean(scores.values()) if scores else None


def paired_difference(pairs: Sequence[tuple[float, float]]) -> Interval | None:
    """Mean of the second of each pair less the first, with its 95 % interval; None for no pairs."""
    if not pairs:
        return None
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        return paired_share_interval([(bool(other), bool(one)) for one, other in pairs])
    return mean_interval([other - one for one, other in pairs])
