"""How hard an instruction is for the systems that are compared: estimated from several of them, or read from a file.

The joint model of arXiv:2404.04475 says that the logit of a win is the sum of what belongs to the instruction, what belongs to the
system, and the system's own effect of length. What belongs to the instruction is its difficulty, one number that each system's own fit may
then weight. There an L1 penalty holds it, here a normal prior. A system's own preferences are left out of the difficulty that its fit uses,
for else they would explain themselves.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longreach.core.errors import InputError
from longreach.evaluation.preferences.annotations import Annotations, Floats
from longreach.evaluation.preferences.logistic import sigmoid

Numbers = NDArray[np.int64]
# 1 / variance of a difficulty. Under the published coefficients of 198 systems, difficulties that were estimated from 57 published files of
# AlpacaEval gave the published win rates to 0.50 points (root mean square) with 0.3, to 0.91 with 0.1 and to 1.65 with 1.
PRECISION = 0.3


def length_feature(of: Annotations) -> Floats:
    """tanh of the difference of lengths over its standard deviation [N]: 0 where both are as long, at most 1 where the system is longer."""
    return np.tanh(of.longer / of.longer.std(ddof=1))


def joint_difficulty(files: Sequence[Annotations], precision: float = PRECISION) -> dict[str, float]:
    """Instruction -> difficulty, by the joint model of all files; larger where systems win more easily against the baseline.

    The posterior mode under independent normal priors of variance 1 / `precision`, by Newton's method. Files whose lengths do not differ
    take part with a feature of 0.
    """
    number = {text: n for n, text in enumerate(dict.fromkeys(text for file in files for text in file.instructions))}
    where = np.concatenate([[number[text] for text in file.instructions] for file in files])
    which = np.repeat(np.arange(len(files)), [len(file.instructions) for file in files])
    y = np.concatenate([file.preference for file in files])
    feature = np.concatenate([length_feature(file) if file.longer.std() else np.zeros(len(file.longer)) for file in files])
    keep = ~np.isnan(y)
    found = _mode(where[keep], which[keep], y[keep], feature[keep], (len(number), len(files)), precision)
    return dict(zip(number, found.tolist(), strict=True))


def _mode(where: Numbers, which: Numbers, y: Floats, feature: Floats, shape: tuple[int, int], precision: float) -> Floats:
    """Difficulties [I] of the joint model; the systems' parameters are solved for behind them (Schur complement)."""
    instructions, systems = shape
    difficulty, slope, level = np.zeros(instructions), np.zeros(systems), np.zeros(systems)
    for _ in range(_STEPS):
        chance = sigmoid(difficulty[where] + slope[which] * feature + level[which])
        rest, q = chance - y, chance * (1 - chance)
        by_instruction = np.bincount(where, rest, instructions) + precision * difficulty
        own = np.bincount(where, q, instructions) + precision
        across = np.zeros((instructions, 2 * systems))
        np.add.at(across, (where, which), q * feature)
        np.add.at(across, (where, systems + which), q)
        by_system = np.concatenate([np.bincount(which, rest * feature, systems), np.bincount(which, rest, systems)])
        by_system += _WEAK * np.concatenate([slope, level])
        mixed = np.bincount(which, q * feature, systems)
        inner = np.block(
            [
                [np.diag(np.bincount(which, q * feature**2, systems)), np.diag(mixed)],
                [np.diag(mixed), np.diag(np.bincount(which, q, systems))],
            ]
        ) + _WEAK * np.eye(2 * systems)
        scaled = across / own[:, None]
        step = np.linalg.solve(inner - across.T @ scaled, by_system - scaled.T @ by_instruction)
        down = by_instruction / own - scaled @ step
        slope, level, difficulty = slope - step[:systems], level - step[systems:], difficulty - down
        if max(np.abs(step).max(), np.abs(down).max()) < _TOLERANCE:
            break
    return difficulty


@dataclass(frozen=True, kw_only=True)
class Gamed:
    """Comparisons of the baseline, told to be verbose or concise, with itself: they hold the effect of length to what it is there.

    Args: feature: as `length_feature` [G]. difficulty: of each row's instruction [G]. preference: 0 to 1 [G].
    by_index: index -> difficulty.
    """

    feature: Floats
    difficulty: Floats
    preference: Floats
    by_index: dict[int, float]


def read_difficulty(path: Path) -> dict[int, float]:
    """Index of an instruction -> difficulty, from a CSV file with columns `index` and `instruction_difficulty`. Raises: InputError."""
    return {int(index): value for index, value in _columns(path, "index", "instruction_difficulty")}


def read_gamed(path: Path) -> Gamed:
    """AlpacaEval's `df_gamed.csv`: index, instruction_difficulty, std_delta_len (baseline - system) and preference. Raises: InputError."""
    rows = np.array(_columns(path, "index", "instruction_difficulty", "std_delta_len", "preference"))
    if not ((rows[:, 3] >= 0) & (rows[:, 3] <= 1)).all():
        raise InputError(f"{path}: a preference is not between 0 and 1")
    by_index = {int(index): float(value) for index, value in rows[:, :2]}
    return Gamed(feature=np.tanh(-rows[:, 2]), difficulty=rows[:, 1], preference=rows[:, 3], by_index=by_index)


def _columns(path: Path, *names: str) -> list[tuple[float, ...]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or 'no CSV file'}") from None
    if not rows or any(name not in rows[0] for name in names):
        raise InputError(f"{path}: a CSV file with the columns {', '.join(names)} is wanted")
    found = []
    for number, row in enumerate(rows, 2):
        try:
            values = tuple(float(row[name]) for name in names)
        except (TypeError, ValueError):
            values = (math.nan,)
        if not all(math.isfinite(value) for value in values):
            raise InputError(f"{path}: line {number} has no number in one of {', '.join(names)}")
        found.append(values)
    return found


_STEPS, _TOLERANCE, _WEAK = 100, 1e-9, 1e-3
