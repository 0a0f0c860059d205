"""WildBench's rule for length: a slight win of an answer that is longer by more than K characters is a tie.

Five outcomes have rewards: 100 for a clear win, 50 for a slight one, 0 for a tie, -50 and -100 for losses; the reward of a system is their
mean. A comparison without judgement counts as 0, as on WildBench's leaderboard. Source: arXiv:2406.04770, and its `leaderboard/data_dir`.
"""

import re
from dataclasses import dataclass

import numpy as np

from longreach.core.errors import InputError
from longreach.evaluation.preferences.annotations import Annotations


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """Counts of the five outcomes, for the system. Args: total: comparisons, judged or not. turned: wins of either that became ties."""

    win_much: int
    win: int
    tie: int
    lose: int
    lose_much: int
    total: int
    turned: int = 0

    @property
    def reward(self) -> float:
        """-100 to 100."""
        return (100 * (self.win_much - self.lose_much) + 50 * (self.win - self.lose)) / self.total


def outcomes(of: Annotations, threshold: float | None = None) -> Outcomes:
    """The outcomes of the comparisons; preferences that are no whole judgements go to the nearest of 1, 0.75, 0.5, 0.25 and 0.

    Args: threshold: K, characters by which a slight winner may be longer. None: any number.
    """
    judged = of.judged
    grade = np.clip(np.rint(4 * of.preference[judged]), 0, 4).astype(int) - 2
    turned = np.zeros(len(grade), bool)
    if threshold is not None:
        turned = (np.abs(grade) == 1) & (grade * of.longer[judged] > threshold)
    counts = np.bincount(np.where(turned, 0, grade) + 2, minlength=5).tolist()
    return Outcomes(
        lose_much=counts[0], lose=counts[1], tie=counts[2], win=counts[3], win_much=counts[4], total=len(judged), turned=int(turned.sum())
    )


def parse_rule(text: str) -> float:
    """K of `wildbench:K`. Raises: InputError."""
    match = re.fullmatch(r"wildbench(?::(\d{1,9}))?", text)
    if match is None:
        raise InputError(f"--tie {text}: write wildbench:500, with the characters by which a slight winner may be longer")
    return float(match[1] or 500)
