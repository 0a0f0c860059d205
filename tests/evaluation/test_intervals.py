import math

import pytest

from longreach.evaluation.intervals import mean_interval, share_interval, t_quantile


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
