"""StreamingLLM a second time, after arXiv:2309.17453 and its authors' code: a cache that is really cut, with places in it as positions."""

import pytest
import torch

from longreach.cache.streaming.sinks import Sinks
from tests.attention.one_head import assert_same, attention, random_head, rotated


def with_a_real_cache(num_sinks, window, q, k, v):
    """Token by token: make room (keep the first `num_sinks` and the last ones), append, attend at places 0, 1, ... in the cache."""
    rows, kept = [], []
    for token in range(len(q)):
        if len(kept) + 1 > num_sinks + window:
            kept = kept[:num_sinks] + kept[len(kept) - window + 1 :]
        kept.append(token)
        places = torch.arange(len(kept))
        logits = rotated(q[token], len(kept) - 1) @ rotated(k[kept], places).mT
        rows.append(attention(logits[None], v[kept])[0])
    return torch.stack(rows)


@pytest.mark.parametrize(("num_sinks", "window"), [(4, 16), (0, 8), (1, 1), (2, 1), (0, 1), (8, 3), (4, 40)])
def test_it_is_the_cache_that_is_cut(num_sinks, window):
    q, k, v = random_head(60)
    assert_same(Sinks(num_sinks=num_sinks, window_size=window), with_a_real_cache(num_sinks, window, q, k, v), q, k, v)


def test_four_sinks_are_the_papers():
    assert Sinks(window_size=8).num_sinks == 4
