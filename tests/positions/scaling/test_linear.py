import pytest

from longreach.positions.scaling.linear import Linear
from tests.positions.ropes import ROPES, assert_close, in_transformers


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 1.5, 4, 32])
def test_every_position_is_divided_by_the_factor(rope, factor):
    # Equation 4 of the paper: f'(x, m) = f(x, m L / L'); the angle of pair i at position m is m theta ** (-2i / d).
    position = 1000
    ours, attention_factor = Linear(factor=factor).inv_freq(rope, 1)
    assert_close(position * ours, [position / factor * rope.theta ** (-2 * i / rope.dim) for i in range(rope.dim // 2)])
    assert attention_factor == 1.0


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_it_agrees_with_transformers(rope):
    ours, attention_factor = Linear(factor=8).inv_freq(rope, 1)
    theirs, their_factor = in_transformers(rope, "linear", factor=8.0)
    assert_close(ours, theirs)
    assert attention_factor == their_factor
