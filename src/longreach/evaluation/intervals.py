"""Confidence intervals: Student's t for means, Wilson's for shares."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval; both ends are infinite where one value allows none."""

    mean: float
    low: float
    high: float


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of independent values, with Student's t interval."""
    mean = fmean(values)
    if len(values) < 2:
        return Interval(mean, -math.inf, math.inf)
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def share_interval(hits: float, n: int) -> Interval:
    """Share of `hits` in `n` tries, with Wilson's score interval, which stays within 0 and 1 and is honest for few tries."""
    z2 = NormalDist().inv_cdf(0.975) ** 2
    share = hits / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def t_quantile(freedom: int) -> float:
    """The t that bounds the middle 95 % of Student's distribution with so many degrees of freedom (>= 1)."""
    low, high = 0.0, 13.0  # 12.706 at one degree of freedom is the largest
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _middle_share(middle, freedom) < 0.95 else (low, middle)
    return high


def _middle_share(t: float, freedom: int) -> float:
    """P(|T| < t), by the finite series of Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(freedom // 2):
        total += term
        term *= cosine2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
