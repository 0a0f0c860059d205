"""Caches one behind the other: keys stand where one reading would have put them."""

import pytest
import torch

from longreach.core.errors import LongreachError, UnsupportedError
from longreach.decoding.reading import new_cache, prefill
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.examine import examine
from longreach.engine.joined import _turned, _turns, join
from longreach.testing.models import random_ids, tiny_learned, tiny_model

FIRST, SECOND, THIRD = random_ids(1, 9), random_ids(1, 11, seed=1), random_ids(1, 5, seed=2)


def filled(model, ids):
    cache = new_cache(model)
    prefill(model, ids, cache=cache)
    return cache


def go_on(model, cache, ids):
    with torch.no_grad():
        return model(ids, **cache_argument(model, cache), use_cache=True).logits


FAMILIES = ("llama", "llama_llama3", "llama_yarn", "llama_linear", "ministral3", "qwen3", "phi3", "gpt_neox", "glm4", "falcon", "granite")
# Half of the dimensions, pairs side by side, a factor on cos and sin, first tokens that keep their frequencies, frequencies of 0.
SPECS = ("yarn:factor=4", "linear:factor=2", "ntk:factor=4+resonance", "longrope:factor=4", "m_rope_pp:factor=2", "nope")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("skip", [0, 2])
def test_keys_that_hang_on_nothing_before_them_are_those_of_one_reading(family, skip):
    model = tiny_model(family).double()
    joined = join(model, [filled(model, ids) for ids in (FIRST, SECOND, THIRD)], skip=skip)
    wanted = filled(model, torch.cat([FIRST, SECOND[:, skip:], THIRD[:, skip:]], 1))
    assert joined.get_seq_length() == wanted.get_seq_length() == 25 - 2 * skip
    torch.testing.assert_close(joined.layers[0].keys, wanted.layers[0].keys, rtol=0, atol=2e-6)  # tables are float32
    torch.testing.assert_close(joined.layers[0].values, wanted.layers[0].values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_under_methods_that_only_change_frequencies(spec):
    model = tiny_model()
    with apply(model, spec):
        joined = join(model, [filled(model, FIRST), filled(model, SECOND)])
        wanted = filled(model, torch.cat([FIRST, SECOND], 1))
        torch.testing.assert_close(joined.layers[0].keys, wanted.layers[0].keys, rtol=0, atol=2e-6)
        go_on(model, joined, THIRD)
        go_on(model, wanted, THIRD)
        torch.testing.assert_close(joined.layers[0].keys, wanted.layers[0].keys, rtol=0, atol=2e-6)  # the question stands behind both


def test_all_layers_are_turned_by_the_definition():
    """Every key of the second text, turned by `place` times the frequencies, in float64."""
    model = tiny_model().double()
    second = filled(model, SECOND)
    joined = join(model, [filled(model, FIRST), second])
    angles = FIRST.shape[1] * model.model.rotary_emb.inv_freq.double()
    for layer, before in zip(joined.layers, second.layers, strict=True):
        a, b = before.keys.chunk(2, -1)
        wanted = torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
        torch.testing.assert_close(layer.keys[:, :, FIRST.shape[1] :], wanted, rtol=0, atol=5e-6)
        assert torch.equal(layer.values[:, :, FIRST.shape[1] :], before.values)


def test_a_model_of_one_layer_goes_on_as_after_one_reading():
    """There, nothing that is kept of a token hangs on the ones before it."""
    model = tiny_model(num_hidden_layers=1)
    joined = join(model, [filled(model, FIRST), filled(model, SECOND)])
    wanted = go_on(model, filled(model, torch.cat([FIRST, SECOND], 1)), THIRD)
    torch.testing.assert_close(go_on(model, joined, THIRD), wanted, rtol=0, atol=1e-4)
    apart = go_on(model, filled(model, SECOND), THIRD)
    assert (apart - wanted).abs().max() > 0.1, "the first text matters"


def test_far_out_keys_are_the_model_s_own():
    """Where float32 blurs the angles by more than the tolerance."""
    model, place = tiny_model(), 300_000
    cache = filled(model, SECOND)
    far, at = new_cache(model), torch.arange(place, place + SECOND.shape[1])[None]
    with torch.no_grad():
        model(SECOND, position_ids=at, **cache_argument(model, far), use_cache=True)
    (rotation,) = {attention.rotation for attention in examine(model, 128)}
    turned = _turned(cache.layers[0].keys, rotation, _turns(model, [rotation], 0, place, cache))
    torch.testing.assert_close(turned, far.layers[0].keys, rtol=0, atol=1e-5)


def test_the_others_stay_as_they_are_and_dtypes_too():
    model = tiny_model().bfloat16()
    second = filled(model, SECOND)
    before = [layer.keys.clone() for layer in second.layers]
    joined = join(model, [filled(model, FIRST), second])
    assert all(torch.equal(layer.keys, keys) for layer, keys in zip(second.layers, before, strict=True))
    assert {layer.keys.dtype for layer in joined.layers} == {torch.bfloat16}
    assert join(model, [second], skip=3) is second
    assert second.get_seq_length() == SECOND.shape[1]


@pytest.mark.parametrize(
    ("make", "spec", "why"),
    [
        (lambda: tiny_model("llama_dynamic"), "", "its frequencies change with the length of a text"),
        (lambda: tiny_model("llama_longrope"), "", "its frequencies change with the length of a text"),
        (lambda: tiny_model("mistral"), "", "some of its layers keep only a window of each document"),
        (lambda: tiny_model("gemma3"), "", "some of its layers keep only a window of each document"),
        (lambda: tiny_learned("gpt2"), "", "its positions are a learned table, added before there are keys"),
        (tiny_model, "sinks:window_size=16", "sinks:window_size=16 computes attention"),
        (tiny_model, "h2o:budget=16", "h2o:budget=16 computes attention"),
        (tiny_model, "log_n", "log_n computes attention"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_moved_exactly_is_refused(make, spec, why):
    model = make()
    with apply(model, spec), pytest.raises(UnsupportedError, match=why) as caught:
        join(model, [filled(model, FIRST), filled(model, SECOND)])
    assert str(caught.value).endswith("; ask about one document at a time, or read them as one")


def test_caches_of_different_methods_are_refused():
    model = tiny_model()
    plain = filled(model, FIRST)
    with apply(model, "yarn:factor=2"), pytest.raises(LongreachError, match="filled by different models, or under different methods"):
        join(model, [plain, filled(model, SECOND)])


def test_what_is_learned_without_frequencies_is_not_remembered():
    model = tiny_model()
    with apply(model, "nope"):
        join(model, [filled(model, FIRST), filled(model, SECOND)])
    assert all(attention.rotation is not None for attention in examine(model, 128))
