"""Which heads keep what, and that the others really keep less."""

import pytest
import torch
from transformers import DynamicCache

from longreach.cache.streaming.duo import Duo
from longreach.core.errors import LongreachError, SpecError, UnsupportedError
from longreach.core.fitting import FittedFile
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import random_ids, tiny_model

SCORES = [[0.1, 0.9], [0.3, 0.2], [0.0, 0.8]]


def file(scores=SCORES, method="duo"):
    return FittedFile.of("heads.json", {"format": 1, "method": method, "fitted": {"scores": scores}})


def read(model, cache, ids):
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True).logits


def kept(cache):
    """Of each layer, tokens that each key-value head keeps, first ones included."""
    found = []
    for layer in cache.layers:
        parts = zip(layer.heads, layer.parts.values(), strict=True) if hasattr(layer, "parts") else [([0, 1], layer)]
        held = {head: len(part.recent) + (part.first["v"].shape[2] if part.first else 0) for heads, part in parts for head in heads}
        found.append([held[head] for head in sorted(held)])
    return found


@pytest.mark.parametrize(
    ("setting", "whole"),
    [
        ({"file": file(), "retrieval": 0.5}, [[1], [0], [1]]),
        ({"file": file(), "retrieval": 0.34}, [[1], [], [1]]),
        ({"file": file(), "retrieval": 0}, [[], [], []]),
        ({"file": file(), "retrieval": 1}, [[0, 1], [0, 1], [0, 1]]),
        ({"heads": "1.0/1.1"}, [[], [0, 1], []]),
    ],
)
def test_heads_that_do_not_retrieve_keep_the_first_tokens_and_a_window(setting, whole):
    model = tiny_model()
    cache = DynamicCache(config=model.config)
    with apply(model, Duo(**setting, num_sinks=3, window_size=10), warn=False):
        for _ in range(2):
            read(model, cache, random_ids(1, 60))
            read(model, cache, random_ids(1, 1))
        assert kept(cache) == [[122 if head in heads else 3 + 10 for head in (0, 1)] for heads in whole]
        assert cache.get_seq_length() == 122


def test_the_tokens_of_the_last_pass_can_be_taken_back_and_no_others():
    model, ids = tiny_model(), random_ids(1, 50)
    cache = DynamicCache(config=model.config)
    with apply(model, "duo:heads=0.0,num_sinks=2,window_size=8", warn=False):
        read(model, cache, ids[:, :40])
        wanted = read(model, cache, ids[:, 40:])
        cache.crop(-10)
        torch.testing.assert_close(read(model, cache, ids[:, 40:]), wanted)
        before = kept(cache)
        with pytest.raises(LongreachError, match="cannot take back 30 tokens"):
            cache.crop(-30)
        assert kept(cache) == before, "a refusal takes nothing back"
        assert cache.get_seq_length() == 50


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("duo:heads=0.5", r"heads=0\.5: the model has 3 layers with full attention, of 2 key-value heads, from 0"),
        ("duo:heads=3.0", r"heads=3\.0: the model has 3 layers"),
        (Duo(file=file([[0.1, 0.2]])), "heads.json is of another model: 1 layers of 2 heads, and this one has 3 of 2"),
    ],
)
def test_heads_that_a_model_does_not_have_are_refused(spec, says):
    with pytest.raises(SpecError, match=says), apply(tiny_model(), spec):
        pass


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(SpecError, match="give file=FILE, which `longreach heads MODEL --save FILE` writes, or heads="):
        parse("duo:window_size=8")
    with pytest.raises(SpecError, match=r"heads=0-1 must be pairs of layer and head, from 0, as in heads=0\.1/2\.0"):
        parse("duo:heads=0-1")
    with pytest.raises(SpecError, match="heads.json was fitted for clex"):
        Duo(file=file(method="clex"))


@pytest.mark.parametrize("other", ["log_n", "harpe:base_min=20000,base_max=500000"])
def test_what_would_have_to_be_divided_by_head_is_refused(other):
    with pytest.raises(UnsupportedError, match="a cache that differs by head"), apply(tiny_model(), f"{other}+duo:heads=0.0"):
        pass
