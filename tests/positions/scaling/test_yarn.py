import math

import pytest
import torch

from longreach.positions.scaling.yarn import Yarn
from tests.positions.ropes import ROPES, assert_close, in_transformers


def dimension_of(rope, turns):
    """The pair, as a fraction, whose angle makes so many turns over the trained window: L theta ** (-2i / d) = 2 pi turns, for i."""
    return rope.dim / 2 * math.log(rope.trained_window / (2 * math.pi * turns)) / math.log(rope.theta)


def by_parts(rope, factor, fast, slow):
    """NTK-by-parts (section 3.2 of the paper), in the whole dimensions between which the official code ramps."""
    low, high = max(math.floor(dimension_of(rope, fast)), 0), min(math.ceil(dimension_of(rope, slow)), rope.dim - 1)
    found = []
    for i in range(rope.dim // 2):
        plain = rope.theta ** (-2 * i / rope.dim)
        gamma = 1 - min(max((i - low) / (high - low), 0.0), 1.0)
        found.append((1 - gamma) * plain / factor + gamma * plain)
    return found


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 4, 16.5])
@pytest.mark.parametrize("betas", [(32.0, 1.0), (16.0, 2.0)])
def test_frequencies_are_ntk_by_parts(rope, factor, betas):
    ours, _ = Yarn(factor=factor, beta_fast=betas[0], beta_slow=betas[1]).inv_freq(rope, 1)
    assert_close(ours, by_parts(rope, factor, *betas))


def test_fast_dimensions_are_kept_and_slow_ones_interpolated():
    # What the ramp is for, from the turns r(i) = L / (2 pi / theta_i) of the paper: r > 32 keeps, r < 1 interpolates.
    rope = ROPES[0]
    plain = rope.inv_freq()
    ours, _ = Yarn(factor=8).inv_freq(rope, 1)
    turns = rope.trained_window * plain / (2 * math.pi)
    assert torch.equal(ours[turns > 33 * 1.16], plain[turns > 33 * 1.16])  # one dimension further, as the ramp begins at a whole one
    assert_close(ours[turns < 0.86], plain[turns < 0.86] / 8)
    assert bool(((ours <= plain) & (ours >= plain / 8 * (1 - 1e-6))).all())


@pytest.mark.parametrize("factor", [1, 4, 32])
def test_attention_is_sharper(factor):
    # Equation 22: sqrt(1 / t) = 0.1 ln(s) + 1 on queries and keys alike.
    assert Yarn(factor=factor).inv_freq(ROPES[0], 1)[1] == pytest.approx(0.1 * math.log(factor) + 1, rel=1e-12)
    assert Yarn(factor=factor, attention_factor=1.25).inv_freq(ROPES[0], 1)[1] == 1.25


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("settings", [{"factor": 4.0}, {"factor": 8.0, "beta_fast": 16.0, "beta_slow": 2.0, "attention_factor": 1.1}])
def test_it_agrees_with_transformers(rope, settings):
    ours, attention_factor = Yarn(**settings).inv_freq(rope, 1)
    theirs, their_factor = in_transformers(rope, "yarn", original_max_position_embeddings=rope.trained_window, **settings)
    assert torch.equal(ours.double(), theirs), "to the last bit"
    assert attention_factor == pytest.approx(their_factor, rel=1e-12)
