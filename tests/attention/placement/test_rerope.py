"""ReRoPE a second time, after kexue.fm/archives/9708 and its author's code: one matrix of true and one of rectified positions."""

import pytest
import torch

from longreach.attention.placement.rerope import ReRoPE
from tests.attention.one_head import assert_same, attention, random_head, rotated


def by_two_matrices(window, leak, q, k, v):
    positions = torch.arange(len(q))
    true = rotated(q, positions) @ rotated(k, positions).mT
    if leak is None:  # every query at the place `window`, every key at 0
        beyond = rotated(q, torch.full_like(positions, window)) @ k.mT
    else:  # an embedding interpolated by `leak`, queries moved ahead by window * (leak - 1)
        beyond = rotated(q, (positions.double() + window * (leak - 1)) / leak) @ rotated(k, positions.double() / leak).mT
    distance = positions[:, None] - positions[None]
    merged = torch.where(distance.abs() < window, true, beyond)
    return attention(merged.masked_fill(distance < 0, float("-inf")), v)


@pytest.mark.parametrize(("window", "leak"), [(16, None), (1, None), (16, 8), (5, 1.5), (7, 16)])
def test_it_is_the_two_matrices(window, leak):
    q, k, v = random_head(60)
    assert_same(ReRoPE(window_size=window, leak=leak), by_two_matrices(window, leak, q, k, v), q, k, v)


def test_decoding_clips_distances():
    # The author's code for one new token: keys turned back by min(distance, window).
    q, k, v = random_head(40)
    clipped = (39 - torch.arange(40)).clip(max=16)
    wanted = attention(q[-1:] @ rotated(k, -clipped).mT, v)
    relative, visible = ReRoPE(window_size=16).reference(torch.tensor([[39]]), torch.arange(40)[None])
    assert visible.all()
    assert torch.equal(relative[0], clipped)
    torch.testing.assert_close(attention((rotated(q[-1:].expand(40, -1), relative[0]) * k).sum(-1)[None], v), wanted, rtol=0, atol=1e-12)
