"""How a budget is divided, and behind which policies it can be."""

from dataclasses import replace

import pytest
import torch

from longreach.cache.base import with_wrappers
from longreach.cache.eviction.h2o import H2O
from longreach.cache.eviction.pyramid import Pyramid
from longreach.cache.eviction.snapkv import SnapKV
from longreach.core.bands import PROBE
from longreach.core.errors import UnsupportedError
from longreach.core.memory import Signals
from longreach.core.spec import parse
from longreach.engine.apply import applied, apply
from longreach.engine.prompt import prompt_end
from longreach.testing.conformance.base import close, logits, same, shared_model
from longreach.testing.models import random_ids, tiny_model


def layers(count, full=None):
    full = tuple(range(count)) if full is None else full
    return [replace(PROBE, layer_idx=index, num_layers=count, full_layers=full) for index in full]


@pytest.mark.parametrize("count", [2, 3, 7, 32])
@pytest.mark.parametrize("budget", [32, 33, 64, 1000])
@pytest.mark.parametrize("beta", [1, 3, 20])
def test_a_pyramid_keeps_the_total(count, budget, beta):
    inner, pyramid = SnapKV(budget=budget), Pyramid(beta=beta)
    budgets = [pyramid.of_layer(inner, layer).tokens(layer) for layer in layers(count)]
    assert sum(budgets) == budget * count
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[-1] == 32 + round((budget - 32) / beta)


def test_a_pyramid_is_of_the_layers_with_full_attention():
    budgets = [Pyramid(beta=20).of_layer(SnapKV(budget=132), layer).tokens(layer) for layer in layers(6, full=(1, 3, 5))]
    assert budgets == [227, 132, 37]


def test_a_pyramid_takes_recent_tokens_along():
    first, last = (Pyramid(beta=4).of_layer(H2O(budget=42), layer) for layer in layers(2))
    assert (first, last) == (H2O(budget=72), H2O(budget=12))


def kept(floor, observed):
    """Tokens that each head keeps of a prompt of 12, of which the last 2 stay."""
    (policy,) = with_wrappers(parse(f"snapkv:budget=6,window_size=2,kernel_size=1+ada:floor={floor}"))
    observed = torch.tensor(observed).float()[None]
    index = torch.arange(12).expand_as(observed)
    return policy.keep(Signals(seen=12, index=index, observed=observed), PROBE)[0].sum(1).tolist()


def test_heads_share_a_budget():
    sharp = [0, 90, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    spread = [9, 8, 7, 9, 8, 7, 9, 8, 7, 9, 1, 1]
    assert kept(1, [sharp, spread]) == [6, 6]
    assert kept(0, [sharp, spread]) == [2 + 1, 2 + 7]
    assert kept(0.5, [sharp, spread]) == [2 + 2 + 2 * 1 // 4, 2 + 2 + 2 * 7 // 4]
    assert kept(0.2, [spread, spread]) == [6, 6]


def test_wrappers_stand_in_any_order():
    model, ids = shared_model(), random_ids(2, 40)
    found = []
    with prompt_end(24):
        for spec in ("snapkv:budget=8,window_size=3+pyramid+ada", "snapkv:budget=8,window_size=3+ada+pyramid"):
            with apply(model, spec, warn=False):
                assert applied(model) == spec
                found.append(logits(model, ids))
    same(found[1], found[0], "the other order")


@pytest.mark.parametrize(
    ("spec", "alone"),
    [
        ("snapkv:budget=64+ada", ""),  # more than is read
        ("snapkv:budget=8,window_size=3+ada:floor=1", "snapkv:budget=8,window_size=3"),
        ("snapkv:budget=8,window_size=3+pyramid:beta=1", "snapkv:budget=8,window_size=3"),
    ],
)
def test_wrappers_that_change_nothing(spec, alone):
    model, ids = shared_model(), random_ids(2, 40)
    with prompt_end(24):
        with apply(model, alone, warn=False):
            wanted = logits(model, ids)
        with apply(model, spec, warn=False):
            close(logits(model, ids), wanted, spec)


def test_a_wrapper_may_stand_behind_what_scales():
    model = tiny_model()
    with apply(model, "h2o:budget=16+log_n:window_size=8+ada"):
        logits(model, random_ids(1, 60))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "ada",
            "ada cannot be used with no cache policy before it: it divides a budget of tokens among layers or heads",
        ),
        ("pyramid+h2o:budget=16", "pyramid cannot be used with no cache policy before it"),
        ("sinks:window_size=16+ada", "put it behind a cache policy that has a budget"),
        ("full+pyramid", "pyramid cannot be used with full"),
        ("tova:budget=16+ada", "ada cannot be used with tova:budget=16: all its heads keep the same tokens"),
        ("h2o:budget=16,packed=true+pyramid", "its keys are packed"),
    ],
)
def test_pairs_that_make_no_sense(spec, says):
    model = tiny_model()
    with pytest.raises(UnsupportedError, match=says), apply(model, spec):
        pass
    assert applied(model) == ""
