import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from longreach.evaluation.intervals import (
    anytime_interval,
    mean_interval,
    paired_share_interval,
    prompts_to_decide,
    ratio_interval,
    reaches,
    share_interval,
    share_ratio_interval,
    t_quantile,
)


# Student's t, 0.975 quantile, as printed in statistical tables.
@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (10, 2.2281), (15, 2.1314), (30, 2.0423), (120, 1.9799)],
)
def test_t_quantiles_are_those_of_the_tables(freedom, value):
    assert t_quantile(freedom) == pytest.approx(value, abs=5e-5)


def test_mean_interval_by_hand():
    # mean 3, standard deviation sqrt(10 / 4) = 1.5811, over sqrt(5): 0.70711; times t(4) = 2.77645: 1.96324
    interval = mean_interval([1, 2, 3, 4, 5])
    assert interval.mean == 3
    assert interval.low == pytest.approx(3 - 1.96324, abs=1e-5)
    assert interval.high == pytest.approx(3 + 1.96324, abs=1e-5)


def test_one_value_has_no_interval():
    interval = mean_interval([2.5])
    assert (interval.mean, interval.low, interval.high) == (2.5, -math.inf, math.inf)


def test_wilson_interval_by_hand():
    # n = 4, p = 3/4, z = 1.959964: centre (0.75 + 0.480182) / 1.960365 = 0.627527, half 0.326886
    interval = share_interval(3, 4)
    assert interval.mean == 0.75
    assert interval.low == pytest.approx(0.300642, abs=1e-5)
    assert interval.high == pytest.approx(0.954413, abs=1e-5)


def test_wilson_interval_stays_within_0_and_1():
    nothing, everything = share_interval(0, 4), share_interval(4, 4)
    assert nothing.low == 0
    assert 0.4 < nothing.high < 0.5
    assert everything.high == 1
    assert everything.low == pytest.approx(1 - nothing.high)


def evidence(share, hits, n):
    """How much likelier `hits` of `n` are under all greater shares alike than under this one: exact, by the incomplete beta function."""
    share = Fraction(share)
    tail = sum(math.comb(n + 1, k) * share**k * (1 - share) ** (n + 1 - k) for k in range(hits + 1))
    under = (1 - share) * share**hits * (1 - share) ** (n - hits)
    return tail / ((n + 1) * math.comb(n, hits)) / under


COUNTS = [(hits, n) for n in (1, 2, 7, 25, 60, 100) for hits in sorted({0, 1, n // 3, n // 2, 4 * n // 5, n - 1, n})]


@pytest.mark.parametrize("bar", [0.85, 0.68, 0.425])
def test_a_share_is_told_from_the_bar_by_a_likelihood_ratio_of_20(bar):
    for hits, n in COUNTS:
        above, below = evidence(bar, hits, n), evidence(1 - Fraction(bar), n - hits, n)
        wanted = True if above >= 20 and hits >= bar * n else False if below >= 20 and hits < bar * n else None
        assert reaches(hits, n, bar) is wanted, (hits, n)


def test_the_ends_of_an_anytime_interval_are_where_the_ratio_is_20():
    for hits, n in COUNTS:
        interval = anytime_interval(hits, n)
        assert interval.mean == hits / n
        assert 0 <= interval.low <= interval.mean <= interval.high <= 1
        for end, right in ((interval.low, hits), (1 - interval.high, n - hits)):
            outside, inside = (evidence(Fraction(max(at, 1e-6)), right, n) for at in (end, end + 2e-6))  # found to a millionth
            assert end == 0 or outside > 20 * 0.999
            assert inside < 20 * 1.001
    assert (anytime_interval(0, 9).low, anytime_interval(9, 9).high) == (0, 1)
    assert anytime_interval(3, 9).low == pytest.approx(1 - anytime_interval(6, 9).high)


def test_an_anytime_interval_is_wider_than_one_that_is_looked_at_once():
    for hits, n in COUNTS:
        at_once, ever = share_interval(hits, n), anytime_interval(hits, n)
        assert ever.low <= at_once.low + 1e-9
        assert ever.high >= at_once.high - 1e-9


@pytest.mark.parametrize("n", [1, 30, 100])
def test_more_hits_never_speak_against_a_share(n):
    ends = [anytime_interval(hits, n) for hits in range(n + 1)]
    for ours, more in itertools.pairwise(ends):
        assert ours.low <= more.low
        assert ours.high <= more.high
    order = {False: 0, None: 1, True: 2}
    verdicts = [order[reaches(hits, n, 0.85)] for hits in range(n + 1)]
    assert verdicts == sorted(verdicts)


@pytest.mark.parametrize("bar", [0.85, 0.425])
def test_whoever_looks_after_every_try_is_seldom_wrong(bar):
    """Shares at the bar itself, where errors are most frequent: at most 5 % of all runs are ever called short of it, or above it."""
    wrong = {True: 0, False: 0}
    known = {}
    runs, tries = 400, 100
    draws = np.random.default_rng(0).random((runs, tries)) < bar
    for hits in draws.cumsum(1):
        for n, count in enumerate(hits.tolist(), 1):
            if (count, n) not in known:
                known[count, n] = reaches(count, n, bar)
            if (verdict := known[count, n]) is not None:
                wrong[verdict] += 1
                break
    assert sum(wrong.values()) > 0
    # 20 of 400 are 5 %; 30 have a chance of 1 in 60 where the rate is 5 %
    assert max(wrong.values()) <= 30


def test_a_clear_share_is_told_soon():
    assert [reaches(n, n, 0.85) for n in (27, 28)] == [None, True]
    assert [reaches(0, n, 0.85) for n in (1, 2, 3)] == [None, None, False]
    assert prompts_to_decide(1.0, 0.85) == 28
    assert prompts_to_decide(0.86, 0.85) is None
    needed = prompts_to_decide(0.5, 0.85)
    assert reaches(needed // 2, needed, 0.85) is False
    assert reaches(needed // 2 - 1, needed - 2, 0.85) is None


def pairs(both, first, second, neither):
    return [(True, True)] * both + [(True, False)] * first + [(False, True)] * second + [(False, False)] * neither


def test_paired_shares_by_hand():
    # both shares 1 of 10: Wilson reaches down to 1 / (1 + z^2 / 10) = 0.722467, and nothing is known of their correlation
    same = paired_share_interval(pairs(10, 0, 0, 0))
    assert same == pytest.approx((0, -0.277533, 0.277533), abs=1e-6)
    better = paired_share_interval(pairs(14, 5, 0, 22))
    worse = paired_share_interval(pairs(14, 0, 5, 22))
    assert better.mean == pytest.approx(5 / 41)
    assert (-worse.high, -worse.low) == pytest.approx((better.low, better.high))
    assert better.low > 0  # five of five that differ


@pytest.mark.parametrize("chances", [(0.5, 0.1, 0.1, 0.3), (0.6, 0.3, 0.05, 0.05), (0.05, 0.4, 0.0, 0.55), (0.25, 0.25, 0.25, 0.25)])
def test_intervals_of_paired_shares_hold_the_true_difference_as_often_as_they_say(chances):
    n, covered = 20, 0.0
    for both, first, second in itertools.product(range(n + 1), repeat=3):
        if (neither := n - both - first - second) < 0:
            continue
        counts = (both, first, second, neither)
        ways = math.factorial(n) / math.prod(map(math.factorial, counts))
        interval = paired_share_interval(pairs(*counts))
        if interval.low <= chances[1] - chances[2] <= interval.high:
            covered += ways * math.prod(chance**count for chance, count in zip(chances, counts, strict=True))
    assert 0.93 < covered <= 1


def test_pairing_narrows_the_interval():
    together, apart = paired_share_interval(pairs(10, 2, 0, 8)), paired_share_interval(pairs(5, 7, 5, 3))
    assert together.mean == apart.mean
    assert together.high - together.low < apart.high - apart.low


def test_a_ratio_lies_where_the_t_test_cannot_tell():
    values, others = [1.0, 2.2, 2.9, 4.3], [2.1, 3.9, 6.2, 8.0]
    ratio = ratio_interval(values, others)
    assert ratio.mean == pytest.approx(sum(values) / sum(others))
    for end in (ratio.low, ratio.high):
        difference = mean_interval([value - end * other for value, other in zip(values, others, strict=True)])
        assert min(abs(difference.low), abs(difference.high)) == pytest.approx(0, abs=1e-9)


def test_a_ratio_to_what_may_be_nothing_has_no_interval():
    assert ratio_interval([1.0, 2.0, 3.0], [-1.0, 0.1, 1.2])[1:] == (-math.inf, math.inf)
    assert ratio_interval([1.0], [2.0]) == (0.5, -math.inf, math.inf)


def test_a_ratio_of_shares_ends_where_the_difference_does():
    """Each end is the ratio r for which the joined Wilson intervals of the one share and of r times the other no longer exclude 0."""
    ratio = share_ratio_interval(60, 100, 70, 90)
    one, other = share_interval(60, 100), share_interval(70, 90)
    assert ratio.mean == pytest.approx((60 / 100) / (70 / 90))
    low = one.mean - ratio.low * other.mean - math.hypot(one.mean - one.low, ratio.low * (other.high - other.mean))
    high = one.mean - ratio.high * other.mean + math.hypot(one.high - one.mean, ratio.high * (other.mean - other.low))
    assert (low, high) == pytest.approx((0, 0), abs=1e-12)


def test_a_ratio_to_a_share_of_nothing_has_no_bound():
    assert share_ratio_interval(3, 10, 0, 10)[1:] == (0.0, math.inf)
    assert share_ratio_interval(0, 100, 80, 100).low == 0.0
    low, high = share_ratio_interval(100, 100, 100, 100)[1:]
    assert low < 1 < high


def test_the_ratio_of_shares_covers():
    """Over all outcomes of 40 and 60 tries, weighted by their chance."""
    chances, counts, covered = (0.6, 0.8), (40, 60), 0.0
    weights = [[math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)] for p, n in zip(chances, counts, strict=True)]
    for k, first in enumerate(weights[0]):
        for j, second in enumerate(weights[1]):
            _, low, high = share_ratio_interval(k, counts[0], j, counts[1])
            covered += first * second * (low <= chances[0] / chances[1] <= high)
    assert 0.93 < covered < 0.98


@pytest.mark.parametrize(("hits", "n", "bar", "verdict"), [(0, 5, 0.0, True), (3, 5, 0.0, True), (4, 5, 1.0, False), (5, 5, 1.0, None)])
def test_bars_at_the_ends(hits, n, bar, verdict):
    """Of a model that finds nothing inside its window the bar is 0; a share of 1 is ruled out by one wrong answer, and shown by none."""
    assert reaches(hits, n, bar) is verdict
