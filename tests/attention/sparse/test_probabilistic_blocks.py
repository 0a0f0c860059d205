"""How often blocks are drawn."""

import torch

from longreach.attention.sparse.probabilistic_blocks import ProbabilisticBlocks


def test_blocks_are_drawn_as_often_as_their_distance_says():
    counts = torch.zeros(40)
    for seed in range(600):
        counts[ProbabilisticBlocks(near=4, num_sinks=0, exponent=1.0, seed=seed).drawn(0, 44)] += 1
    expected = 4 / (44 - torch.arange(40))
    torch.testing.assert_close(counts / 600, expected, rtol=0, atol=0.08)


def test_what_is_drawn_hangs_on_layer_and_block_and_on_nothing_else():
    method = ProbabilisticBlocks(near=2, seed=1)
    assert torch.equal(method.drawn(3, 30), method.drawn(3, 30))
    draws = {tuple(method.drawn(layer, block).tolist()) for layer in range(6) for block in (30, 31)}
    assert len(draws) == 12
    assert all(draw[0] == 0 for draw in draws), "the first block is always there"
    assert method.drawn(0, 2).tolist() == []
