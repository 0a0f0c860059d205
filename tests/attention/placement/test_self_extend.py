"""Self-Extend a second time, from the pseudocode of arXiv:2401.01325: two logit matrices, of true and of grouped positions."""

import pytest
import torch

from longreach.attention.placement.self_extend import SelfExtend
from tests.attention.one_head import assert_same, attention, random_head, rotated


def by_pseudocode(neighbours, group, q, k, v):
    length = len(q)
    positions = torch.arange(length)
    shift = neighbours - neighbours // group
    near = rotated(q, positions) @ rotated(k, positions).mT
    far = rotated(q, positions // group + shift) @ rotated(k, positions // group).mT
    # The neighbour mask is the causal triangle less the triangle that begins `neighbours` below it.
    is_near = torch.ones(length, length).tril() - torch.ones(length, length).tril(-neighbours)
    merged = torch.where(is_near.bool(), near, far)
    return attention(merged.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf")), v)


@pytest.mark.parametrize(("neighbours", "group"), [(16, 4), (1, 3), (10, 7), (4, 2), (3, 16), (16, 16)])
def test_it_is_the_pseudocode(neighbours, group):
    q, k, v = random_head(60)
    assert_same(SelfExtend(neighbours=neighbours, group=group), by_pseudocode(neighbours, group, q, k, v), q, k, v)


@pytest.mark.parametrize(("neighbours", "group", "trained"), [(16, 4, 64), (10, 7, 40)])
def test_no_position_leaves_the_trained_window_up_to_the_stated_length(neighbours, group, trained):
    # Section 3.3: the length that fits is (trained - neighbours) * group + neighbours.
    method, length = SelfExtend(neighbours=neighbours, group=group), (trained - neighbours) * group + neighbours
    farthest = method.reference(torch.arange(length)[:, None], torch.arange(length)[None])[0].tril()
    assert farthest.max() < trained + 1
    assert method.reference(torch.tensor(length * 2), torch.tensor(0))[0] > trained


def test_positions_do_not_jump_where_near_becomes_far():
    method = SelfExtend(neighbours=16, group=4)
    relative, _ = method.reference(torch.arange(200)[:, None], torch.arange(200)[None])
    steps = -relative.diff(dim=1).tril(-1)  # from one key to the next nearer one
    assert steps.max() <= 4
    assert (steps >= -3).all()  # within one group of keys, floor division may turn the order by less than a group
