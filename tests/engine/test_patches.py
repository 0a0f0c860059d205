"""Facts that stand in a text for one question: what is asked sees them, and nothing else ever does."""

import sys
from functools import cache as memoized

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, DynamicCache

from longreach.cache.base import BudgetWrapper
from longreach.core import registry
from longreach.core.bands import PROBE
from longreach.core.errors import LongreachError, SpecError
from longreach.core.memory import Store
from longreach.core.spec import parse
from longreach.decoding.reading import new_cache
from longreach.engine.apply import apply
from longreach.engine.patches import patchable, patched, read_aside, taken_back
from longreach.evaluation.readings import can_share
from longreach.positions.base import PositionsMethod
from longreach.testing import conformance
from longreach.testing.conformance.base import WINDOW, close, first, rounds, same, with_weights
from longreach.testing.models import VOCABULARY, random_ids, randomize, tiny_learned, tiny_model
from tests.engine.caches import read

TEXT, FACT, QUESTION = random_ids(1, 45), random_ids(1, 6, seed=1), random_ids(1, 4, seed=2)
MORE = random_ids(1, 3, seed=3)
PLACES = (1, 9, 20, 36, 39)  # the last one ends where the question begins


def tiny_bloom():
    """Its positions are a bias by distance (ALiBi)."""
    return randomize(BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=64, n_layer=3, n_head=4)).eval())


PLAIN = {
    "llama": tiny_model,
    "gemma3": lambda: tiny_model("gemma3"),  # some layers see 8 tokens
    "mistral": lambda: tiny_model("mistral"),  # all do
    "qwen2_mixed": lambda: tiny_model("qwen2_mixed", sliding_window=6),  # less than the fact
    "gpt2": lambda: tiny_learned("gpt2"),
    "bloom": tiny_bloom,
}


def asked(model, cache, place, fact, *, pieces=(13, 40)):
    """Logits of the question about a fact, and what is kept for others."""
    patch, done = None, 0
    for end in sorted({place, *pieces, TEXT.shape[1]}):
        if end > done:
            read(model, cache, TEXT[:, done:end])
            done = end
        if end == place:
            with taken_back(cache):
                read(model, cache, fact)
                patch = read_aside(cache, place)
    with patched(cache, patch), taken_back(cache):
        return read(model, cache, QUESTION)


def by_hand(model, place):
    """The same with caches that keep all keys and values of every layer: those of the fact, read behind the text before it, are put in."""
    aside, cache = DynamicCache(), DynamicCache()
    read(model, aside, torch.cat([TEXT[:, :place], FACT], 1))
    read(model, cache, TEXT)
    end = place + FACT.shape[1]
    for layer, facts in zip(cache.layers, aside.layers, strict=True):
        layer.keys = torch.cat([layer.keys[:, :, :place], facts.keys[:, :, place:end], layer.keys[:, :, end:]], 2)
        layer.values = torch.cat([layer.values[:, :, :place], facts.values[:, :, place:end], layer.values[:, :, end:]], 2)
    return read(model, cache, QUESTION)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", PLAIN)
def test_a_question_sees_the_fact_in_the_place_of_the_text(name, place):
    model = PLAIN[name]()
    ours = asked(model, new_cache(model), place, FACT)
    close(ours, by_hand(model, place), f"{name} with a fact at {place}", tolerance=2e-4)
    far = read(model, DynamicCache(config=model.config), torch.cat([TEXT, QUESTION], 1))[:, -QUESTION.shape[1] :]
    seen = name != "mistral" or place >= 36  # three layers of 8 tokens see no farther back
    assert (float((ours - far).abs().max()) > 1e-2) == seen


# --- under every method


@memoized
def examples():
    """The first setting of every method that works on a decoder with rotary positions, and the stacks of those that change others."""
    trials = [trial for trial in conformance.cases() if trial.check.name == "snapshots"]
    found = {trial.example.spec: trial.example for trial in trials if first(trial.example)}
    for method in registry.methods("positions"):
        example = sys.modules[method.__module__].EXAMPLES[0]
        if isinstance(example, PositionsMethod):
            found.setdefault(example.spec, example)
    (each_length_its_own,) = parse("dynamic_ntk:factor=2,step=1")
    return found | {each_length_its_own.spec: each_length_its_own}


def under(spec, layers):
    """A model of its own, with what the method adds to it."""
    method = examples()[spec]
    model = with_weights(tiny_model(max_position_embeddings=WINDOW, num_hidden_layers=layers), method)
    return apply(model.double() if rounds(method) else model, method, warn=False)


def shares(spec):
    with under(spec, 3) as model:  # settings may name layers
        return can_share(model)


@memoized
def shared():
    return [spec for spec in examples() if shares(spec)]


def bears_one_layer(spec):
    """Whether a setting names no layer but the first."""
    try:
        with under(spec, 1):
            return True
    except SpecError:
        return False


def views(name):
    """The parts of the memory of a cache method that works alone."""
    (example, *_) = registry.module(name).EXAMPLES
    return () if isinstance(example, BudgetWrapper) else example.stores(PROBE) or ()


def test_methods_that_choose_by_content_do_not_share():
    names = {spec.partition(":")[0] for spec in shared()}
    assert names >= {"self_extend", "rerope", "yarn", "dynamic_ntk", "sinks", "lm_infinite", "log_n", "dual_chunk", "gali", "alibi", "full"}
    stored = {name for name in registry.names("cache") if any(isinstance(view, Store) for view in views(name))}
    assert stored >= {"h2o", "tova", "snapkv", "sirllm", "infllm", "staircase"}
    kept = {spec.partition(":")[0] for spec in examples()} - names
    assert kept == stored | {"activation_beacon", "cable", "combiner", "duo", "extensible", "hip", "hirope", "landmark", "longheads"}


@pytest.mark.parametrize(
    "name", ["snapkv:budget=8,window_size=3,kernel_size=3", "h2o:budget=16,slack=4", "longheads:chunk_size=5,num_chunks=5"]
)
def test_what_cannot_be_taken_back_is_refused(name):
    with under(name, 1) as model:
        cache = new_cache(model)
        read(model, cache, TEXT)
        assert not patchable(cache)
        with pytest.raises(LongreachError, match="cannot be taken back"), taken_back(cache):
            pass
        assert cache.get_seq_length() == TEXT.shape[1]


@pytest.mark.parametrize("spec", examples())
def test_a_fact_that_the_text_says_itself_changes_nothing(spec):
    """Nor does a question: the text goes on, bit for bit, as if nothing had been asked."""
    if spec not in shared():
        return
    with under(spec, 3) as model:
        plain = new_cache(model)
        for part in TEXT.split([9, 4, 27, 5], 1):
            read(model, plain, part)
        wanted = read(model, plain, QUESTION)
        plain.crop(-QUESTION.shape[1])
        asked_once, never = new_cache(model), new_cache(model)
        close(asked(model, asked_once, 9, TEXT[:, 9:15]), wanted, f"{spec}: its own words")
        asked_once = new_cache(model)
        asked(model, asked_once, 9, FACT)
        for part in TEXT.split([9, 4, 27, 5], 1):
            read(model, never, part)
        same(read(model, asked_once, MORE), read(model, never, MORE), f"{spec}: the text after a question")


@pytest.mark.parametrize("spec", examples())
def test_with_one_layer_a_fact_is_as_if_the_text_had_it(spec):
    """There keys and values hang on the token and its position alone, so that a plain reading of the changed text is the definition."""
    if spec not in shared() or not bears_one_layer(spec):
        return
    with under(spec, 1) as model:
        for place in PLACES:
            changed = torch.cat([TEXT[:, :place], FACT, TEXT[:, place + FACT.shape[1] :], QUESTION], 1)
            plain = read(model, new_cache(model), changed)[:, -QUESTION.shape[1] :]
            close(asked(model, new_cache(model), place, FACT), plain, f"{spec}: a fact at {place}")
