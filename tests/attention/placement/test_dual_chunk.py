"""Dual chunk attention a second time, chunk by chunk as arXiv:2402.17463 describes it: three attentions with their own positions."""

import pytest
import torch

from longreach.attention.placement.dual_chunk import DualChunk
from tests.attention.one_head import assert_same, attention, random_head, rotated


def chunk_by_chunk(size, window, q, k, v):
    """size: s of the paper. window: w. The trained window is c = s + w."""
    longest = size + window - 1  # c - 1
    succ = [*range(size, size + window), *[longest] * (size - window)]  # P_q of successive chunks
    outs = []
    for begin in range(0, len(q), size):
        queries = q[begin : begin + size]
        logits = torch.full((len(queries), begin + len(queries)), float("-inf"), dtype=q.dtype)
        for start in range(0, begin + 1, size):
            keys = rotated(k[start : start + size], torch.arange(len(k[start : start + size])))
            if start == begin:
                found = rotated(queries, torch.arange(len(queries))) @ keys.T
                found = found.masked_fill(torch.ones_like(found).triu(1).bool(), float("-inf"))
            elif start == begin - size:
                found = rotated(queries, torch.tensor(succ[: len(queries)])) @ keys.T
            else:
                found = rotated(queries, torch.full((len(queries),), longest)) @ keys.T
            logits[:, start : start + found.shape[1]] = found
        outs.append(attention(logits, v[: logits.shape[1]]))
    return torch.cat(outs)


@pytest.mark.parametrize(("size", "window"), [(12, 4), (7, 7), (5, 1), (2, 1), (30, 10)])
def test_it_is_the_three_attentions(size, window):
    q, k, v = random_head(50)
    assert_same(DualChunk(chunk_size=size, local_window=window), chunk_by_chunk(size, window, q, k, v), q, k, v)


def test_the_example_of_the_paper():
    # The paper's example: 12 tokens, a window of 10, chunks of 6 and so a local window of 4.
    relative, _ = DualChunk(chunk_size=6, local_window=4).reference(torch.arange(12)[:, None], torch.arange(12)[None])
    assert relative[6].tolist()[:7] == [6, 5, 4, 3, 2, 1, 0]
    assert relative[9].tolist()[:10] == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert relative[11].tolist() == [9, 8, 7, 6, 5, 4, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(("size", "window"), [(12, 4), (7, 7), (5, 1)])
def test_the_nearest_keys_are_at_true_distances_and_none_is_outside_the_window(size, window):
    i, j = torch.arange(100)[:, None], torch.arange(100)[None]
    relative, _ = DualChunk(chunk_size=size, local_window=window).reference(i, j)
    near = (i - j >= 0) & (i - j < window)
    assert torch.equal(relative[near], (i - j)[near])
    assert relative[j <= i].min() >= 0
    assert relative[j <= i].max() < size + window
