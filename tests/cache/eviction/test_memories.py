"""Memories of Attendre: which tokens leave first."""

import pytest
import torch

import longreach
from longreach.cache.eviction.fifo import Fifo
from longreach.core.bands import PROBE
from longreach.core.memory import Signals
from longreach.decoding.reading import new_cache, read
from longreach.testing.models import random_ids, tiny_model


def held(policy, tokens, chunk, model=None):
    """Tokens that each head of each layer holds before the next one, of one row that was read in chunks; the window included."""
    model = model or tiny_model()
    with longreach.apply(model, policy, warn=False):
        cache = new_cache(model)
        for _ in read(model, random_ids(1, tokens), cache=cache, chunk_size=chunk, logits="last"):
            pass
    found = []
    for layer in cache.layers:
        (row,) = layer.store.rows.values()
        window = range(row.state.upto, tokens)
        found += [[*kept, *window] for kept in row.state.index[0].tolist()]
    return found


@pytest.mark.parametrize("chunk", [1, 5, 40])
def test_the_first_in_is_the_first_out(chunk):
    # Cuts come before the tokens 14, 18, ..., 38, and leave ten; 38 and 39 came since.
    assert all(kept == list(range(28, 40)) for kept in held(Fifo(budget=10, slack=4), 40, chunk))


def test_a_long_memory_leaves_in_order_too():
    index = torch.arange(5000)[None, None]
    assert Fifo(budget=3).keep(Signals(seen=5000, index=index), PROBE)[0, 0].nonzero().flatten().tolist() == [4997, 4998, 4999]
