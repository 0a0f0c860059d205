"""AlpacaEval's difficulties of instructions, and its gamed baselines, recovered from what was published with them.

Its length-controlled win rates stand on a file (`df_gamed.csv`) that is not in its repository. What is in it leaves traces there. The
published coefficients of a system are the optimum of a fit, at which three slopes are zero; they give its published win rate, as the mean
of predictions, and the standard error of that mean. Each is an equation in the difficulties. The preferences of the gamed baselines are in
all fits by two sums alone, of preference times length and of preference times difficulty, which are unknowns beside them. The equations
are solved by least squares, from difficulties estimated from the annotations.
"""

from dataclasses import dataclass

import numpy as np

from longreach.evaluation.preferences.annotations import Floats
from longreach.evaluation.preferences.difficulty import Gamed
from longreach.evaluation.preferences.logistic import STRENGTHS, sigmoid

_RATE, _ERROR, _SLOPE, _SUM = 0.003, 0.001, 0.1, 0.15  # how well the published numbers are met: points, points, sums over rows
_PRIOR = 0.4  # standard deviation of a difficulty about its estimate
_WEIGHT = 0.1  # of a row of a gamed baseline
_PENALTIES = 1 / STRENGTHS[4:]  # of the fits that were published
_STEPS, _SETTLED, _OUTLIER, _LEAST_MOVE = 40, 8, 3.0, 1e-4


@dataclass(frozen=True, kw_only=True)
class PublishedFit:
    """A system's published numbers, and what they were fitted to.

    Args: coefficients: of length (positive: longer wins), difficulty, and the constant. rate: length-controlled, percent. error: its
    published standard error, or NaN. feature: of length, of each comparison [N]; None where neither annotations nor outputs are there.
    preference: [N]; None without annotations. wins: sum of the preferences; NaN where it is not known.
    """

    name: str
    coefficients: tuple[float, float, float]
    rate: float
    error: float
    feature: Floats | None = None
    preference: Floats | None = None
    wins: float = float("nan")


class _Equations:
    """Residuals in units of their tolerance, and their slopes in the difficulties [I] and the two sums."""

    def __init__(self, unknowns: int) -> None:
        self.unknowns = unknowns
        self.residuals: list[float] = []
        self.slopes: list[Floats] = []

    def add(self, residual: float, slope: Floats, tolerance: float) -> None:
        self.residuals.append(residual / tolerance)
        self.slopes.append(np.pad(slope, (0, self.unknowns - len(slope))) / tolerance)


def recover(fits: list[PublishedFit], gamed_feature: Floats, start: Floats) -> tuple[Floats, Floats]:
    """The difficulties [I], and the preferences of the gamed baselines [2 I], as far as these published fits know them.

    Args: gamed_feature: of length, of both gamed baselines, one behind the other [2 I]. start: estimates of the difficulties [I].
    The gamed preferences are some that have the right sums: no fit sees more of them.
    """
    count = len(start)
    unknown = np.concatenate([start, _sums(gamed_feature, start)])
    for step in range(_STEPS):
        equations = _Equations(count + 2)
        for fit in fits:
            _rates(equations, fit, unknown[:count])
            if fit.feature is not None:
                _stationary(equations, fit, unknown, gamed_feature, settled=step >= _SETTLED)
        residuals, slopes = np.array(equations.residuals), np.array(equations.slopes)
        weight = 1 / (1 + (residuals / _OUTLIER) ** 2) if step > 3 else np.ones(len(residuals))
        prior = np.concatenate([np.full(count, _PRIOR**-2), [1e-12, 1e-12]])
        gradient = slopes.T @ (weight * residuals) + prior * np.concatenate([unknown[:count] - start, [0, 0]])
        move = np.linalg.solve((slopes.T * weight) @ slopes + np.diag(prior), gradient)
        unknown = unknown - move
        if step > _SETTLED + 4 and np.abs(move[:count]).max() < _LEAST_MOVE:
            break
    return unknown[:count], _with_sums(gamed_feature, unknown[:count], unknown[count:])


def gamed_of(difficulty: Floats, feature: Floats, preference: Floats) -> Gamed:
    """As the library reads it from a file."""
    by_index = dict(enumerate(difficulty.tolist()))
    return Gamed(feature=feature, difficulty=np.tile(difficulty, 2), preference=preference, by_index=by_index)


def _rates(equations: _Equations, fit: PublishedFit, difficulty: Floats) -> None:
    """The published win rate, and its standard error, are those of the predictions at equal lengths."""
    _, b, c = fit.coefficients
    chance, count = sigmoid(c + b * difficulty), len(difficulty)
    slope = b * chance * (1 - chance)
    equations.add(100 * chance.mean() - fit.rate, 100 * slope / count, _RATE)
    if np.isfinite(fit.error):
        spread = chance.std(ddof=1)
        change = slope * (chance - chance.mean()) / ((count - 1) * spread)
        equations.add(100 * (spread / np.sqrt(count)) - fit.error, 100 * change / np.sqrt(count), _ERROR)


def _stationary(equations: _Equations, fit: PublishedFit, unknown: Floats, gamed_feature: Floats, settled: bool) -> None:
    """At the published coefficients the slopes of loss and penalty cancel; the penalty is taken from the ones that were tried."""
    difficulty, sums = unknown[:-2], unknown[-2:]
    w, b, c = fit.coefficients
    rows = slice(0, len(fit.feature))  # AlpacaEval numbers the rows of a file, also where an instruction is missing
    own = difficulty[rows]
    chance = sigmoid(w * fit.feature + b * own + c)
    slope = b * chance * (1 - chance)
    if fit.preference is None:
        constant = chance.sum() - fit.wins
        penalty = _penalty(np.array([constant]), np.sign([c]), settled)
        equations.add(constant + penalty * np.sign(c), slope, _SUM)
        return
    rest, both = chance - fit.preference, np.tile(difficulty, 2)
    gamed = sigmoid(w * gamed_feature + b * both)
    bend = _WEIGHT * b * gamed * (1 - gamed)
    values = np.array(
        [
            (fit.feature * rest).sum() + _WEIGHT * ((gamed_feature * gamed).sum() - sums[0]),
            (own * rest).sum() + _WEIGHT * ((both * gamed).sum() - sums[1]),
            rest.sum(),
        ]
    )
    slopes = np.zeros((3, len(unknown)))
    slopes[0, rows], slopes[1, rows], slopes[2, rows] = fit.feature * slope, rest + own * slope, slope
    slopes[0, :-2] += (gamed_feature * bend).reshape(2, -1).sum(0)
    slopes[1, :-2] += (_WEIGHT * gamed + both * bend).reshape(2, -1).sum(0)
    slopes[0, -2] = slopes[1, -1] = -_WEIGHT
    signs = np.sign([w, b, c])
    for value, line in zip(values + _penalty(values, signs, settled) * signs, slopes, strict=True):
        equations.add(value, line, _SLOPE)


def _penalty(values: Floats, signs: Floats, settled: bool) -> float:
    """1 / C: the one that fits best, once the difficulties are near."""
    return float(min(_PENALTIES, key=lambda one: np.abs(values + one * signs).sum())) if settled else float(_PENALTIES[1])


def _sums(feature: Floats, difficulty: Floats) -> Floats:
    """What the sums would be if the gamed baselines were as length and difficulty make most systems: only a start."""
    both = np.tile(difficulty, 2)
    preference = sigmoid(1.8 * feature + 0.8 * both)
    return np.array([(feature * preference).sum(), (both * preference).sum()])


def _with_sums(feature: Floats, difficulty: Floats, sums: Floats) -> Floats:
    """Preferences [2 I] with these sums, of the logistic form."""
    x, w = np.stack([feature, np.tile(difficulty, 2)], axis=1), np.zeros(2)
    for _ in range(50):
        chance = sigmoid(x @ w)
        w = w - np.linalg.solve((x.T * (chance * (1 - chance))) @ x, x.T @ chance - sums)
    return sigmoid(x @ w)
