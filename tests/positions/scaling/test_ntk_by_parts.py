import math

import pytest
import torch

from longreach.positions.scaling.ntk_by_parts import NtkByParts
from tests.positions.ropes import ROPES, assert_close, in_transformers


def by_parts(rope, factor, alpha, beta):
    """Section 3.2: r(d) = L / wavelength, gamma(r) = 0 below alpha, 1 above beta, (r - alpha) / (beta - alpha) between; definition 2."""
    found = []
    for i in range(rope.dim // 2):
        theta = rope.theta ** (-2 * i / rope.dim)
        r = rope.trained_window / (2 * math.pi / theta)
        gamma = 0.0 if r < alpha else 1.0 if r > beta else (r - alpha) / (beta - alpha)
        found.append((1 - gamma) * theta / factor + gamma * theta)
    return found


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 4, 16.5])
@pytest.mark.parametrize("ramp", [(1.0, 32.0), (2.0, 16.0)])
def test_frequencies_are_those_of_the_paper(rope, factor, ramp):
    ours, attention_factor = NtkByParts(factor=factor, alpha=ramp[0], beta=ramp[1]).inv_freq(rope, 1)
    assert_close(ours, by_parts(rope, factor, *ramp))
    assert attention_factor == 1.0


def test_fast_dimensions_are_kept_and_slow_ones_interpolated():
    rope = ROPES[0]
    plain = rope.inv_freq()
    ours, _ = NtkByParts(factor=8).inv_freq(rope, 1)
    turns = rope.trained_window * plain / (2 * math.pi)
    assert torch.equal(ours[turns >= 32], plain[turns >= 32])
    assert_close(ours[turns <= 1], plain[turns <= 1] / 8)
    middle = (turns > 1) & (turns < 32)
    assert bool(((ours < plain) & (ours > plain / 8))[middle].all())


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_the_export_is_exact(rope):
    method = NtkByParts(factor=8)
    written = method.rope_parameters(rope)
    rope_type = written.pop("rope_type")
    theirs, attention_factor = in_transformers(rope, rope_type, **written)
    assert torch.equal(method.inv_freq(rope, 1)[0].double(), theirs)
    assert attention_factor == 1.0
