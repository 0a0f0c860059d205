import math

import pytest

from longreach.positions.base import Wrapped
from longreach.positions.scaling.giraffe_power import GiraffePower
from longreach.positions.scaling.linear import Linear
from tests.positions.ropes import ROPES, assert_close


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("power", [0, 0.1, 0.5, 2])
def test_frequencies_are_scaled_by_a_power_of_their_place(rope, power):
    # Power basis of the paper: theta_i (1 - 2i / d) ** k.
    ours, attention_factor = GiraffePower(power=power).inv_freq(rope, 1)
    assert_close(ours, [rope.theta ** (-2 * i / rope.dim) * (1 - 2 * i / rope.dim) ** power for i in range(rope.dim // 2)])
    assert attention_factor == 1.0


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 3, 16])
def test_the_factor_is_what_the_slowest_dimension_is_stretched_by(rope, factor):
    ours, _ = GiraffePower(factor=factor).inv_freq(rope, 1)
    plain = rope.inv_freq()
    assert ours[0] == plain[0]
    assert math.isclose(ours[-1], plain[-1] / factor, rel_tol=1e-5)


def test_stacked_on_linear_scaling_both_act():
    # The official code divides by the scale first.
    rope = ROPES[0]
    both, _ = Wrapped(inner=Linear(factor=4), outer=GiraffePower(power=0.5)).inv_freq(rope, 1)
    assert_close(both, GiraffePower(power=0.5).inv_freq(rope, 1)[0].double() / 4)
