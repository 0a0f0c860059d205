"""FoPE: which frequencies are kept, and what the sums over them are."""

import math

import pytest
import torch

from longreach.positions.base import Rope
from longreach.positions.by_head.fope import Fope

ROPE = Rope(theta=10_000.0, dim=64, trained_window=512, num_heads=4)


def test_frequencies_that_do_not_turn_in_the_window_are_zero():
    found, factor = Fope().inv_freq(ROPE, 4096)
    own = ROPE.inv_freq()
    for head in found:
        for ours, theirs in zip(head.tolist(), own.tolist(), strict=True):
            assert ours == (theirs if theirs * 512 >= 2 * math.pi else 0)
    assert factor == 1


def test_each_pair_has_its_own_frequency_and_a_little_of_all_others():
    kept = int((Fope().inv_freq(ROPE, 512)[0][0] > 0).sum())
    turned = min(kept, 16)
    for table in Fope(gain=0.3).mixture(ROPE):
        coefficients = table[:, :kept, :turned]
        step = math.ceil(kept / turned)
        own = torch.zeros(kept, turned)
        for column in range(turned):
            if column * step < kept:
                own[column * step, column] = 1
        rest = coefficients - own
        assert float(rest.std()) == pytest.approx(0.3 * math.sqrt(2 / (turned * (kept + 4))), rel=0.1)
        assert not torch.equal(rest[0], rest[1])  # heads differ


def test_without_gain_and_with_a_low_floor_it_is_rope_on_the_first_pairs():
    cos, sin = Fope(gain=0).mixture(ROPE)
    frequencies = Fope().inv_freq(ROPE, 512)[0][0]
    angles = torch.arange(50)[:, None] * frequencies
    turned = (angles.cos() @ cos[0], angles.sin() @ sin[0])
    kept = int((frequencies > 0).sum())
    step = math.ceil(kept / min(kept, 16))
    chosen = frequencies[:kept:step]
    assert torch.allclose(turned[0][:, : len(chosen)], (torch.arange(50)[:, None] * chosen).cos(), atol=1e-5)
    assert torch.allclose(turned[1][:, : len(chosen)], (torch.arange(50)[:, None] * chosen).sin(), atol=1e-5)
    assert torch.equal(turned[0][:, 16:], torch.ones(50, 16))  # not turned
    assert torch.equal(turned[1][:, 16:], torch.zeros(50, 16))


def test_a_seed_is_a_model():
    again, other = Fope(seed=1).mixture(ROPE), Fope(seed=2).mixture(ROPE)
    assert torch.equal(Fope(seed=1).mixture(ROPE)[0], again[0])
    assert not torch.equal(again[0], other[0])
