"""Inserted tokens are read with the text, and whoever asked sees the text alone."""

import pytest
import torch
from transformers import DynamicCache

import longreach
from longreach.cache.trained.activation_beacon import ActivationBeacon
from longreach.cache.trained.extensible import Extensible
from longreach.cache.trained.landmark import Landmark
from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.weights import own_weights
from longreach.testing.conformance.base import with_weights
from longreach.testing.models import random_ids, tiny_learned, tiny_model

POLICY = Landmark(block_size=6, num_blocks=2)


def model(family="llama", **changes):
    return with_weights(tiny_model(family, **changes), POLICY)


def test_the_text_alone_comes_back():
    one, ids = model(), random_ids(2, 40)
    with apply(one, POLICY, warn=False), torch.no_grad():
        cache = DynamicCache(config=one.config)
        output = one(ids, output_hidden_states=True, use_cache=True, **cache_argument(one, cache))
        assert {tuple(state.shape) for state in output.hidden_states} == {(2, 40, one.config.hidden_size)}
        assert output.logits.shape[1] == 40
        assert cache.get_seq_length() == 40
        assert all(layer.inserted["values"].shape[2] == 6 for layer in cache.layers)
        as_tuple = one(ids, return_dict=False, use_cache=False)
        assert torch.allclose(as_tuple[0], output.logits, atol=1e-5)
        embedded = one(inputs_embeds=one.get_input_embeddings()(ids), use_cache=False).logits
        assert torch.equal(embedded, one(ids, use_cache=False).logits)


def test_rows_that_begin_elsewhere_have_their_own():
    one, ids = model(), random_ids(3, 40)
    mask = torch.ones_like(ids)
    mask[0, :13], mask[1, :33] = 0, 0
    with apply(one, POLICY, warn=False), torch.no_grad():
        cache = DynamicCache(config=one.config)
        one(ids, attention_mask=mask, use_cache=True, **cache_argument(one, cache))
        assert [layer.inserted["keys"].shape[2] for layer in cache.layers] == [6] * len(cache.layers)
        cache.crop(-5)
        cache.batch_select_indices(torch.tensor([0]))
        again = one(ids[:1, 35:], attention_mask=mask[:1], use_cache=True, **cache_argument(one, cache)).logits
        alone = one(ids[:1, 13:], use_cache=False).logits[:, 22:]
    assert torch.allclose(again, alone, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2_mixed"])
def test_rows_that_begin_elsewhere_and_have_as_many(family):
    one, ids, mask = model(family), random_ids(2, 40), torch.ones(2, 40, dtype=torch.long)
    mask[0, :2] = 0
    with apply(one, POLICY, warn=False), torch.no_grad():
        both, alone = one(ids, attention_mask=mask, use_cache=False).logits, one(ids[:1, 2:], use_cache=False).logits
    assert torch.allclose(both[:1, 2:], alone, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")  # its new name is not in all versions that are supported
def test_gradients_come_through_layers_that_are_computed_again():
    one, ids = model(), random_ids(1, 40)
    with apply(one, POLICY, warn=False):
        one.train()
        wanted = torch.autograd.grad(one(ids, labels=ids, use_cache=False).loss, list(own_weights(one).values()))
        one.gradient_checkpointing_enable()
        ours = torch.autograd.grad(one(ids, labels=ids, use_cache=False).loss, list(own_weights(one).values()))
    assert float(wanted[0].abs().max()) > 0
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, wanted, strict=True))


@pytest.mark.parametrize("family", ["llama", "qwen2_mixed"])
@pytest.mark.parametrize(
    "policy",
    [POLICY, ActivationBeacon(window_size=12, ratio=3), Extensible(chunk_size=12, ratio=3, layers=2)],
    ids=lambda policy: policy.name(),
)
def test_they_are_trained_under_autocast(policy, family):
    one, ids = with_weights(tiny_model(family), policy), random_ids(2, 40)
    with apply(one, policy, warn=False):
        wanted = one(ids, labels=ids, use_cache=False).loss
        with torch.autocast("cpu", torch.bfloat16):
            ours = one(ids, labels=ids, use_cache=False).loss
        gradients = torch.autograd.grad(ours, list(own_weights(one).values()), allow_unused=True)
    assert torch.allclose(ours, wanted, rtol=0.05)
    assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)


def test_a_model_without_the_weights_is_refused():
    with (
        pytest.raises(UnsupportedError, match=r"no weights for it \(embedding\); give it some \(longreach.equip\)"),
        apply(tiny_model(), POLICY),
    ):
        pass


@pytest.mark.parametrize("other", ["log_n", "alibi", "dynamic_ntk:factor=2"])
def test_what_changes_logits_or_follows_the_length_cannot_stand_beside_it(other):
    with pytest.raises(UnsupportedError, match="it says itself what inserted tokens see"), apply(model(), f"{other}+{POLICY}"):
        pass


def test_frequencies_can_be_scaled_beside_it():
    one, ids = model(), random_ids(1, 40)
    with torch.no_grad():
        with apply(one, POLICY, warn=False):
            plain = one(ids, use_cache=False).logits
        with apply(one, f"yarn:factor=4+{POLICY}", warn=False):
            assert float((one(ids, use_cache=False).logits - plain).abs().max()) > 1e-3


def test_learned_positions_are_refused():
    gpt = tiny_learned("gpt2")
    with pytest.raises(UnsupportedError):
        longreach.equip(gpt, POLICY)


def test_padding_inside_a_text_is_refused():
    one, ids = model(), random_ids(1, 40)
    mask = torch.ones_like(ids)
    mask[:, 7:9] = 0
    with apply(one, POLICY, warn=False), pytest.raises(LongreachError, match="padding inside a text cannot go with a method that inserts"):
        one(ids, attention_mask=mask, use_cache=False)


def test_weights_begin_at_the_mean_of_all_tokens():
    one = longreach.equip(tiny_model(), POLICY)
    (embedding,) = own_weights(one).values()
    assert torch.allclose(embedding[0], one.get_input_embeddings().weight.mean(0))
