import math

import pytest

from longreach.core.errors import UnsupportedError
from longreach.positions.base import Rope
from longreach.positions.scaling.dynamic_ntk import DynamicNtk
from longreach.positions.scaling.ntk import Ntk
from tests.positions.ropes import ROPES, assert_close


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 1.5, 4, 32])
def test_the_base_grows_by_the_factor_to_the_power_of_d_over_d_minus_2(rope, factor):
    # bloc97's announcement; definition 1 and equation 16 of arXiv:2309.00071: b' = b s ** (|D| / (|D| - 2)).
    base = rope.theta * factor ** (rope.dim / (rope.dim - 2))
    ours, attention_factor = Ntk(factor=factor).inv_freq(rope, 1)
    assert_close(ours, [base ** (-2 * i / rope.dim) for i in range(rope.dim // 2)])
    assert attention_factor == 1.0


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_the_highest_frequency_stays_and_the_lowest_is_interpolated(rope):
    # What the base is chosen for.
    ours, _ = Ntk(factor=8).inv_freq(rope, 1)
    plain = rope.inv_freq()
    assert ours[0] == plain[0] == 1.0
    assert math.isclose(ours[-1], plain[-1] / 8, rel_tol=1e-5)


def test_the_export_is_a_plain_embedding_of_the_same_frequencies():
    rope = ROPES[0]
    written = Ntk(factor=8).rope_parameters(rope)
    assert written["rope_type"] == "default"
    assert_close(Ntk(factor=8).inv_freq(rope, 1)[0], rope.inv_freq(written["rope_theta"]))


@pytest.mark.parametrize("method", [Ntk(factor=4), DynamicNtk(factor=4)])
def test_a_single_frequency_cannot_be_changed_by_a_base(method):
    with pytest.raises(UnsupportedError, match=r"its only frequency is the same under any base; choose linear, or yarn"):
        method.inv_freq(Rope(theta=10_000.0, dim=2, trained_window=128), 512)
