"""Beacons: what is kept of a window, and that nothing else of it is seen."""

import numpy as np
import torch
from transformers import DynamicCache

from longreach.cache.trained.activation_beacon import ActivationBeacon
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.weights import equip
from longreach.planning.holdings import holdings
from longreach.testing.conformance.base import with_weights
from longreach.testing.models import random_ids, tiny_model

WINDOW, RATIO = 16, 4
POLICY = ActivationBeacon(window_size=WINDOW, ratio=RATIO)


def read(model, cache, ids):
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True).logits


def test_tokens_go_and_beacons_stay():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(1, 60 * WINDOW)
    whole = DynamicCache(config=model.config)
    with apply(model, "full"):
        for part in ids.split(WINDOW, 1):
            read(model, whole, part)
        full = holdings(whole).kept
    cache = DynamicCache(config=model.config)
    with apply(model, POLICY, warn=False):
        for part in ids.split(WINDOW, 1):
            read(model, cache, part)
        assert cache.get_seq_length() == 60 * WINDOW
        for layer in cache.layers:
            assert len(layer.recent) <= 2 * WINDOW
            assert layer.inserted["keys"].shape[2] == 60 * WINDOW // RATIO
        assert holdings(cache).kept < full / 2


def test_of_a_window_that_is_over_only_its_beacons_are_seen():
    model = with_weights(tiny_model(), POLICY)
    one, other, next_ = random_ids(1, WINDOW), random_ids(1, WINDOW, seed=1), random_ids(1, 9, seed=2)
    with apply(model, POLICY, warn=False):
        caches = [DynamicCache(config=model.config) for _ in range(2)]
        for cache, text in zip(caches, (one, other), strict=True):
            read(model, cache, text)
        for mine, theirs in zip(caches[0].layers, caches[1].layers, strict=True):
            mine.inserted = dict(theirs.inserted)
        swapped, wanted = (read(model, cache, next_) for cache in caches)
    assert torch.equal(swapped, wanted)


def test_before_training_beacons_are_projected_as_the_text_is():
    model = equip(tiny_model(), POLICY)
    made = model.model.layers[0].self_attn.longreach_weights["activation_beacon"]
    assert {name: bool(value.any()) for name, value in made.items()} == {
        "query": False, "key": False, "value": False, "embedding": True
    }  # fmt: skip
    assert torch.allclose(made["embedding"][0], model.get_input_embeddings().weight.mean(0))


def test_training_draws_ratios_that_fit_the_window():
    rng = np.random.default_rng(0)
    policy = ActivationBeacon(window_size=128, ratio=16)
    drawn = {policy.drawn(rng, 1024, 512).ratio for _ in range(40)}
    assert drawn == {4, 8, 16, 32}
    assert policy.drawn(rng, 100_000, 512) == policy  # none fits
