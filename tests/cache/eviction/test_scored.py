"""Budgets of tokens and of shares, and what scores that look at keys and values keep."""

import pytest
import torch
from transformers import DynamicCache

import longreach
from longreach.cache.eviction.expected_attention import ExpectedAttention
from longreach.cache.eviction.keydiff import KeyDiff
from longreach.cache.eviction.knorm import Knorm
from longreach.cache.eviction.lagkv import Lagging, LagKV
from longreach.core.bands import PROBE
from longreach.core.errors import SpecError, UnsupportedError
from longreach.core.memory import Signals
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids, tiny_model


def kept(policy, **signals):
    """Tokens that stay of one row with one head; signals [n, D]."""
    signals = {name: tensor[None, None] for name, tensor in signals.items()}
    count = next(iter(signals.values())).shape[2]
    mask = policy.keep(Signals(seen=count, index=torch.arange(count)[None, None], **signals), PROBE)
    return mask[0, 0].nonzero().flatten().tolist()


def test_the_shortest_keys_stay():
    keys = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-2.0, 0.0], [0.1, 0.1], [0.0, -1.0]])
    assert kept(Knorm(budget=2), turned=keys) == [3, 4], "of two equal norms the later"
    assert kept(Knorm(budget=0.6), turned=keys) == [1, 3, 4]


def test_the_keys_that_point_elsewhere_stay():
    keys = torch.tensor([[9.0, 0.1], [8.0, -0.1], [0.0, 1.0], [7.0, 0.0], [-1.0, 0.2]])
    assert kept(KeyDiff(budget=2), turned=keys) == [2, 4]


@pytest.mark.parametrize(("budget", "tokens", "left"), [(0.25, 40, 10), (0.25, 41, 10), (0.01, 40, 1), (0.99, 3, 3), (5, 40, 5)])
def test_a_share_is_of_the_prompt(budget, tokens, left):
    model, ids = tiny_model(), random_ids(1, tokens + 3)
    with longreach.apply(model, Knorm(budget=budget), warn=False):
        cache = DynamicCache(config=model.config)
        for part in (ids[:, :tokens], *ids[:, tokens:].split(1, 1)):
            model(part, **cache_argument(model, cache))
    (row,) = cache.layers[0].store.rows.values()
    assert row.state.index.shape[2] == left
    assert len(cache.layers[0].recent) == 3, "what is written stays"


def test_budgets_that_mean_nothing_are_refused():
    with pytest.raises(SpecError, match=r"knorm: budget=1\.5 must be a number of tokens, or a share of the prompt below 1"):
        Knorm(budget=1.5)
    with pytest.raises(SpecError, match=r"budget=0\.5 is a share of the prompt, and every=4 cuts within it"):
        Knorm(budget=0.5, every=4)
    with pytest.raises(UnsupportedError, match="its budget is no number of tokens; give one"):
        longreach.apply(tiny_model(), "knorm:budget=0.5+ada").__enter__()


def test_partitions_are_cut_once_the_next_one_is_full():
    assert Lagging(2, 5).before(0, 31, 0) == [12, 17, 22, 27]
    assert Lagging(2, 5).before(13, 17, 0) == []
    assert Lagging(2, 5).before(17, 18, 0) == [17]


def test_of_a_partition_the_uneven_tokens_stay():
    after = torch.tensor([[0.0, 0.0], [1.0, 1.0]])  # the range of the partition behind: 0 to 1 in both dimensions
    before = torch.tensor([[0.5, 0.5], [0.0, 3.0]])
    text = torch.cat([torch.zeros(3, 2), before, after])
    assert kept(LagKV(ratio=0.5, num_sinks=3, lag=2), turned=text, values=text) == [0, 1, 2, 4, 5, 6]
    assert kept(LagKV(ratio=1, num_sinks=3, lag=2), turned=text, values=text) == [0, 1, 2, 3, 4, 5, 6]


def test_dimensions_without_a_range_do_not_count():
    after = torch.tensor([[0.0, 0.0, 5.0], [1.0, 1.0, 5.0]])
    before = torch.tensor([[0.5, 0.5, 9.0], [0.0, 3.0, 5.0]])
    text = torch.cat([before, after])
    assert kept(LagKV(ratio=0.5, num_sinks=0, lag=2), turned=text, values=text) == [1, 2, 3]
    same = torch.ones(4, 3)
    assert kept(LagKV(ratio=0.5, num_sinks=0, lag=2), turned=same, values=same) == [1, 2, 3], "of equal ones the later"


def test_sinks_are_a_part_of_the_budget():
    with pytest.raises(SpecError, match="num_sinks=4 must be at most budget=3"):
        ExpectedAttention(budget=3)
    assert ExpectedAttention(budget=0.001).least == 4
