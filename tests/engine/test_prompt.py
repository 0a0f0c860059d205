"""Where a prompt ends, whoever reads it."""

import copy

import pytest
import torch
from transformers import DynamicCache

from longreach.decoding.generation import tokens
from longreach.decoding.reading import new_cache, prefill
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.prompt import prompt_end
from longreach.engine.snapshots import restore, snapshot
from longreach.testing.conformance.base import close, shared_model, written
from longreach.testing.models import random_ids, tiny_model

SPEC = "snapkv:budget=8,window_size=3"


def held(cache):
    """Tokens that the first layer holds, of each key-value head."""
    row = next(iter(cache.layers[0].store.rows.values()))
    return row.state.index.shape[2] + cache.layers[0].tokens - row.state.upto


@torch.no_grad()
def step(model, cache, ids):
    return model(ids, **cache_argument(model, cache), use_cache=True).logits


def test_a_prompt_ends_with_the_first_pass():
    model, ids, cache = shared_model(), random_ids(1, 33), DynamicCache(config=shared_model().config)
    counts = []
    with apply(model, SPEC, warn=False):
        for part in ids.split((20, 1, 6, 6), 1):  # a prompt, what follows it, and two turns more
            step(model, cache, part)
            counts.append(held(cache))
    assert counts == [20, 9, 15, 21]


@pytest.mark.parametrize("chunk_size", [3, 7, 20, 64])
def test_a_prompt_that_is_read_in_chunks_ends_where_it_ends(chunk_size):
    model, ids, more = shared_model(), random_ids(2, 20), random_ids(2, 5, seed=1)
    cache, at_once = new_cache(model), new_cache(model)
    with apply(model, SPEC, warn=False):
        first = step(model, at_once, ids)[:, -1]
        close(prefill(model, ids, cache=cache, chunk_size=chunk_size), first, "the last of the prompt")
        close(step(model, cache, more), step(model, at_once, more), "what follows")
    assert held(cache) == held(at_once) == 8 + 5


def test_reading_on_is_no_other_prompt():
    model, cache = shared_model(), new_cache(shared_model())
    with apply(model, SPEC, warn=False):
        for seed in range(3):
            prefill(model, random_ids(1, 20, seed=seed), cache=cache, chunk_size=8)
    assert held(cache) == 8 + 40


@pytest.mark.parametrize(
    "options", [{"prefill_chunk_size": 6}, {"use_cache": False}, {"prompt_lookup_num_tokens": 4}], ids=lambda options: next(iter(options))
)
def test_generate_says_how_long_its_prompt_is(options):
    model, ids = shared_model(), random_ids(1, 5).repeat(1, 4)
    with apply(model, SPEC, warn=False):
        wanted = written(model, ids, tokens=12)
        assert torch.equal(written(model, ids, tokens=12, **options), wanted)
        ours = list(tokens(model, ids, max_new_tokens=12, chunk_size=6))
        assert ours == wanted[0, : len(ours)].tolist()
        assert torch.equal(written(copy.deepcopy(model), ids, tokens=12, **options), wanted)
    assert "generate" not in vars(model)


def test_the_outermost_says_where_a_prompt_ends():
    model, cache = shared_model(), new_cache(shared_model())
    with apply(model, SPEC, warn=False), prompt_end(12):
        prefill(model, random_ids(1, 20), cache=cache)
    assert held(cache) == 8 + 8


def test_the_end_of_a_prompt_is_in_its_snapshot():
    model, cache, more = shared_model(), new_cache(shared_model()), random_ids(1, 5, seed=1)
    with apply(model, SPEC, warn=False):
        prefill(model, random_ids(1, 20), cache=cache)
        taken = snapshot(cache)
        wanted = step(model, cache, more)
        restore(again := new_cache(model), taken)
        close(step(model, again, more), wanted, "what follows a restored prompt")
    assert held(again) == 8 + 5


def test_an_empty_cache_has_no_prompt():
    model, cache = shared_model(), new_cache(shared_model())
    with apply(model, SPEC, warn=False):
        step(model, cache, random_ids(1, 20))
        cache.crop(-20)
        step(model, cache, random_ids(1, 16))
        step(model, cache, random_ids(1, 1))
    assert held(cache) == 8 + 1


def test_a_generate_of_somebody_else_is_left_alone():
    model = tiny_model()
    model.generate = own = lambda ids: ids
    with apply(model, SPEC, warn=False):
        assert model.generate is own
    assert model.generate is own
