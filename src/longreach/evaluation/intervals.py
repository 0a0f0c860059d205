"""Confidence intervals: Student's t for means, Wilson's for shares, Newcombe's for paired shares, Fieller's for ratios of means."""

import math
from collections.abc import Sequence
from statistics import NormalDist, covariance, fmean, stdev, variance
from typing import NamedTuple


class Interval(NamedTuple):
    """A mean with its 95 % confidence interval; both ends are infinite where one value allows none."""

    mean: float
    low: float
    high: float


_MOST_PROMPTS, _MOST_TEXTS = 10_000, 100_000
_WHOLE = 1e-6  # what differs by less from a whole number is one


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


def prompts_to_decide(share: float, bar: float) -> int | None:
    """How many prompts would tell whether a share is at least the bar, if it stays what it is; None: more than 10,000.

    >>> prompts_to_decide(1.0, 0.9), prompts_to_decide(0.95, 0.9)
    (35, 140)
    """
    for n in range(1, _MOST_PROMPTS + 1):
        found = share_interval(round(share * n), n)
        if abs(round(share * n) - share * n) < _WHOLE and (found.low >= bar or found.high < bar):
            return n
    return None


def texts_to_decide(interval: Interval, n: int, bar: float) -> int | None:
    """About how many texts would tell whether a mean is at most the bar, if mean and spread stay; None: more than 100,000, or not known.

    >>> texts_to_decide(Interval(0.0, -0.1, 0.1), 16, 0.05)
    64
    """
    half, distance = interval.high - interval.mean, abs(bar - interval.mean)
    if not math.isfinite(half) or distance == 0:
        return None
    needed = math.ceil(n * (half / distance) ** 2 - _WHOLE)
    return needed if needed <= _MOST_TEXTS else None


def paired_share_interval(pairs: Sequence[tuple[bool, bool]]) -> Interval:
    """Share of the first of each pair less share of the second, for two answers to each of the same questions.

    Newcombe's square-and-add interval: the Wilson intervals of both shares, joined by their correlation. Unlike Student's t it keeps a
    width where all pairs agree. Source: Newcombe, Improved confidence intervals for the difference between binomial proportions based on
    paired data, Statistics in Medicine 17, 1998, method 10.
    """
    both, first, second = (pairs.count(pair) for pair in ((True, True), (True, False), (False, True)))
    n = len(pairs)
    neither = n - both - first - second
    one, other = share_interval(both + first, n), share_interval(both + second, n)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess = both * neither - first * second
    correlation = (min(excess, 0) + max(excess - n / 2, 0)) / math.sqrt(margins) if margins else 0.0

    def half(down: float, up: float) -> float:
        return math.sqrt(max(0.0, down**2 - 2 * correlation * down * up + up**2))

    mean = (first - second) / n
    return Interval(
        mean, mean - half(one.mean - one.low, other.high - other.mean), mean + half(other.mean - other.low, one.high - one.mean)
    )


def ratio_interval(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Mean of `values` over mean of `others`, paired, with Fieller's interval; infinite where `others` may have a mean of 0.

    It holds the ratios r for which Student's t does not tell the mean of `values - r * others` from 0. Source: Fieller, Some problems in
    interval estimation, Journal of the Royal Statistical Society B 16, 1954.
    """
    top, bottom, n = fmean(values), fmean(others), len(values)
    if n < 2:
        return Interval(top / bottom, -math.inf, math.inf)
    t2 = t_quantile(n - 1) ** 2 / n
    a, b, c = bottom**2 - t2 * variance(others), top * bottom - t2 * covariance(values, others), top**2 - t2 * variance(values)
    if a <= 0:
        return Interval(top / bottom, -math.inf, math.inf)
    half = math.sqrt(max(0.0, b * b - a * c))
    return Interval(top / bottom, (b - half) / a, (b + half) / a)


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
