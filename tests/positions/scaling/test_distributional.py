import math

import pytest

from longreach.core.errors import SpecError
from longreach.positions.base import Rope
from longreach.positions.scaling.distributional import Distributional
from tests.positions.ropes import ROPES, assert_close


def shares(frequency, length, intervals):
    """Equations 5 to 7: how often m * theta mod 2 pi falls into each of b equal intervals, for m below the length."""
    counts = [0] * intervals
    for m in range(length):
        angle = m * frequency % (2 * math.pi)
        counts[min(int(angle / (2 * math.pi) * intervals), intervals - 1)] += 1
    return [count / length for count in counts]


def disturbance(new, old, epsilon=1e-8):
    """Equation 8."""
    return sum(f * math.log((f + epsilon) / (g + epsilon)) for f, g in zip(new, old, strict=True))


@pytest.mark.parametrize(("factor", "intervals", "threshold"), [(4, 360, 0.0), (2.5, 90, 0.05), (8, 360, 1.0)])
def test_each_dimension_takes_what_disturbs_less(factor, intervals, threshold):
    rope = Rope(theta=10_000.0, dim=32, trained_window=128)
    wanted, scaled = [], 0
    for theta in rope.inv_freq().double().tolist():
        old, target = shares(theta, 128, intervals), math.ceil(128 * factor)
        extrapolated, interpolated = shares(theta, target, intervals), shares(theta / factor, target, intervals)
        divide = disturbance(extrapolated, old) >= disturbance(interpolated, old) + threshold
        scaled += divide
        wanted.append(theta / factor if divide else theta)
    ours, attention_factor = Distributional(factor=factor, intervals=intervals, threshold=threshold).inv_freq(rope, 1)
    assert_close(ours, wanted)
    assert attention_factor == 1.0
    assert 0 < scaled < 16


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_slow_dimensions_are_interpolated_and_the_fastest_kept(rope):
    ours, _ = Distributional(factor=8).inv_freq(rope, 1)
    plain = rope.inv_freq()
    slow = 2 * math.pi / plain > 2 * rope.trained_window  # beyond the window they would meet nothing but new angles
    assert_close(ours[slow], plain[slow].double() / 8)
    assert ours[0] == plain[0]


def test_more_tokens_than_can_be_counted_are_refused():
    with pytest.raises(SpecError, match="distributional: factor=100000 is 204800000 tokens; it can count the angles of 16777216 at most"):
        Distributional(factor=1e5).inv_freq(ROPES[0], 1)


def test_a_higher_threshold_interpolates_fewer_dimensions():
    rope = ROPES[0]
    counts = [
        int((Distributional(factor=4, threshold=threshold).inv_freq(rope, 1)[0] != rope.inv_freq()).sum()) for threshold in (0, 0.5, 20)
    ]
    assert counts[0] >= counts[1] > counts[2] == 0


def test_llama_2_is_interpolated_about_as_the_paper_says():
    # Section 4.1: 64 of 128 dimensions for 16k, which is half of the 64 pairs.
    rope = Rope(theta=10_000.0, dim=128, trained_window=4096)
    scaled = int((Distributional(factor=4).inv_freq(rope, 1)[0] != rope.inv_freq()).sum())
    assert 16 <= scaled <= 48, scaled
