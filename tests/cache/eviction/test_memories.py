"""Memories of Attendre: which tokens leave first."""

import pytest
import torch

import longreach
from longreach.cache.eviction.fifo import Fifo
from longreach.cache.eviction.lfa import LFA
from longreach.cache.eviction.lra import LRA
from longreach.core.bands import PROBE
from longreach.core.memory import Signals
from longreach.decoding.reading import new_cache, read
from longreach.testing.models import random_ids, tiny_model


def stay(policy, **signals):
    """Tokens that stay of one row with one head; signals: a number for each token."""
    signals = {name: torch.tensor(values)[None, None] for name, values in signals.items()}
    count = next(iter(signals.values())).shape[2]
    mask = policy.keep(Signals(seen=count, index=torch.arange(count)[None, None], **signals), PROBE)
    return mask[0, 0].nonzero().flatten().tolist()


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


def test_what_no_query_attended_to_for_longest_goes():
    assert stay(LRA(budget=3), last=[5, -1, 3, 4, -1, 5]) == [0, 4, 5], "4 counts from when it came, and came after 3 was attended to"
    assert stay(LRA(budget=4), last=[-1, 2, 2, 3, 4, -1]) == [2, 3, 4, 5], "of equal ages the later"


def test_what_fewest_queries_attended_to_goes():
    assert stay(LFA(budget=3, recent=0), times=[9, 0, 2, 1, 2, 0]) == [0, 2, 4]
    assert stay(LFA(budget=2, recent=0), times=[9, 0, 2, 1, 2, 0]) == [0, 4], "of equal counts the later"
    assert stay(LFA(budget=3, recent=2), times=[9, 0, 2, 1, 2, 0]) == [0, 4, 5], "the last stay in any case"
    assert stay(LFA(budget=4), times=[9, 0, 2, 1, 2, 0]) == [0, 2, 4, 5], "half of the budget are the last ones"


@pytest.mark.parametrize("chunk", [7, 30])
def test_the_times_are_those_of_the_models_own_attention(chunk):
    tokens, top, seen = 30, 3, []

    class Noting(LFA):
        def score(self, signals, layer):
            seen.append((layer.layer_idx, signals.last[0], signals.times[0]))
            return super().score(signals, layer)

    model = tiny_model()
    held(Noting(budget=20, slack=9, top_k=top), tokens, chunk, model)
    ids = random_ids(1, tokens)[:, :29]
    model.set_attn_implementation("eager")
    attentions = model(ids, output_attentions=True).attentions
    assert [layer for layer, _, _ in seen] == list(range(len(attentions))), "one cut, before the token 29"
    for layer, last, times in seen:
        weights = attentions[layer][0].unflatten(0, (len(last), -1))  # [K, G, query, key]
        for head, groups in enumerate(weights):
            first = [(q, key) for rows in groups for q, row in enumerate(rows) for key in row.topk(min(top, q + 1)).indices.tolist()]
            assert times[head].tolist() == [sum(key == token for _, key in first) for token in range(29)]
            assert last[head].tolist() == [max((q for q, key in first if key == token), default=-1) for token in range(29)]
