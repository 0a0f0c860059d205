import math

import pytest

from longreach.positions.base import Rope
from longreach.positions.scaling.giraffe_truncated import GiraffeTruncated
from tests.positions.ropes import ROPES, assert_close, in_transformers


def truncated(rope, cutoff):
    """Truncated basis of the paper, theta_i from b on, rho from a to b, 0 below a; with b = 2 pi / cutoff, a = b / 8, rho = b / 16."""
    b = 2 * math.pi / cutoff
    plain = [rope.theta ** (-2 * i / rope.dim) for i in range(rope.dim // 2)]
    return [theta if theta >= b else b / 16 if theta >= b / 8 else 0.0 for theta in plain]


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("cutoff", [None, 40, 100_000])
def test_frequencies_are_kept_constant_or_zero(rope, cutoff):
    ours, attention_factor = GiraffeTruncated(cutoff=cutoff).inv_freq(rope, 1)
    assert_close(ours, truncated(rope, cutoff or rope.trained_window))
    assert attention_factor == 1.0


def test_what_is_kept_has_turned_once_in_the_window():
    rope = Rope(theta=10_000.0, dim=128, trained_window=2048)
    ours, _ = GiraffeTruncated().inv_freq(rope, 1)
    assert ((ours == rope.inv_freq()) == (2 * math.pi / rope.inv_freq() <= 2048)).all()
    assert (ours == 0).any()


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_the_export_leaves_nothing_that_turns_where_it_stands_still(rope):
    method = GiraffeTruncated()
    written = method.rope_parameters(rope)
    theirs, _ = in_transformers(rope, written.pop("rope_type"), seq_len=10 * rope.trained_window, **written)
    ours, _ = method.inv_freq(rope, 1)
    assert_close(theirs[ours > 0], ours[ours > 0].double())
    assert (theirs[ours == 0] * 1e7 < 1e-7).all(), "an angle that can be told from 0 within ten million tokens"
