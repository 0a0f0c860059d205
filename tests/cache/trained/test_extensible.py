"""Embeddings that stand for chunks: what they are, what they hang on, and what is kept."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from transformers import DynamicCache

from longreach.cache.trained.extensible import Extensible
from longreach.core.errors import SpecError, UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.contexts import first_layers
from longreach.engine.reach import reach_of
from longreach.engine.weights import equip, own_weights
from longreach.planning.holdings import holdings
from longreach.testing.conformance.base import with_weights
from longreach.testing.models import random_ids, tiny_model

CHUNK, RATIO = 12, 3
POLICY = Extensible(chunk_size=CHUNK, ratio=RATIO, layers=2)


@dataclass(frozen=True, kw_only=True)
class Same(Extensible):
    """Tokens stand for themselves."""

    def weights(self, layer):
        return {}

    def condensed(self, chunks, read, layer):
        return chunks


def embeddings(model, ids, policy=POLICY):
    """Those that the first layer gets behind the tokens of the text, [B, M, hidden_size]."""
    seen = []
    with apply(model, policy, warn=False), torch.no_grad():
        layer = model.base_model.layers[0]
        # Only the last call of the layer is the text's: before it stands that which makes the embeddings.
        hook = layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[0]), with_kwargs=True)
        model(ids, use_cache=False)
        hook.remove()
    return seen[-1][:, ids.shape[1] :]


@pytest.mark.parametrize("family", ["llama", "qwen2_mixed", "gemma3"])
def test_before_training_they_are_states_of_the_models_first_layers(family):
    model, ids = equip(tiny_model(family), POLICY), random_ids(2, 3 * CHUNK + 5)
    config = type(model.config)(**model.config.to_dict())
    config.num_hidden_layers, config.layer_types = 2, (getattr(config, "layer_types", None) or [None, None])[:2]
    short = type(model.base_model)(config).eval()
    short.load_state_dict(model.base_model.state_dict(), strict=False)
    with torch.no_grad():
        wanted = [short(part, use_cache=False)[0][:, RATIO - 1 :: RATIO] for part in ids[:, : 3 * CHUNK].split(CHUNK, 1)]
    found = embeddings(model, ids)
    assert found.shape == (2, 3 * CHUNK // RATIO, 64)
    assert torch.allclose(found, torch.cat(wanted, 1), atol=1e-5)


def test_each_hangs_on_its_own_chunk_up_to_its_place():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(1, 3 * CHUNK)
    other = ids.clone()
    other[0, CHUNK + 4] = (other[0, CHUNK + 4] + 1) % 90
    differ = (embeddings(model, ids) - embeddings(model, other)).abs().amax(-1)[0] > 1e-5
    # Of the second chunk, the embeddings at its places 2, 5, 8 and 11.
    assert differ.tolist() == [False] * 4 + [False, True, True, True] + [False] * 4


def test_tokens_that_stand_for_themselves_are_full_attention():
    model, ids, policy = tiny_model(), random_ids(2, 50), Same(chunk_size=8, ratio=1)
    mask = torch.ones_like(ids)
    mask[1, :11] = 0
    with torch.no_grad():
        wanted = model(ids, attention_mask=mask, use_cache=False).logits
        with apply(model, policy, warn=False):
            ours = model(ids, attention_mask=mask, use_cache=False).logits
    assert torch.allclose(ours[mask.bool()], wanted[mask.bool()], atol=1e-4)


def test_tokens_of_an_open_chunk_can_be_taken_back():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(1, 2 * CHUNK + 4)
    with apply(model, POLICY, warn=False), torch.no_grad():
        whole = model(ids, use_cache=False).logits
        cache = DynamicCache(config=model.config)
        model(ids[:, :7], **cache_argument(model, cache), use_cache=True)
        model(random_ids(1, 9, seed=3), **cache_argument(model, cache), use_cache=True)  # ends behind the first chunk
        cache.crop(-9)
        rest = model(ids[:, 7:], **cache_argument(model, cache), use_cache=True).logits
    assert torch.allclose(rest, whole[:, 7:], atol=1e-4)


def test_the_callers_embeddings_may_change_afterwards():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(1, CHUNK + 6)
    with apply(model, POLICY, warn=False), torch.no_grad():
        whole = model(ids, use_cache=False).logits
        cache, given = DynamicCache(config=model.config), model.get_input_embeddings()(ids[:, :7])
        model(inputs_embeds=given, **cache_argument(model, cache), use_cache=True)
        given.zero_()
        rest = model(ids[:, 7:], **cache_argument(model, cache), use_cache=True).logits
    assert torch.allclose(rest, whole[:, 7:], atol=1e-4)


def test_chunks_go_and_their_embeddings_stay():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(1, 60 * CHUNK)
    kept = {}
    for spec in ("full", POLICY):
        cache = DynamicCache(config=model.config)
        with apply(model, spec, warn=False), torch.no_grad():
            for part in ids.split(CHUNK, 1):
                model(part, **cache_argument(model, cache), use_cache=True)
            kept[spec] = holdings(cache).kept
            if spec == POLICY:
                assert cache.get_seq_length() == 60 * CHUNK
                assert cache.layers[0].stream.embeds.shape[1] < 2 * CHUNK
                for layer in cache.layers:
                    assert len(layer.recent) < 2 * CHUNK
                    assert layer.inserted["keys"].shape[2] == 60 * CHUNK // RATIO
    assert kept[POLICY] < kept["full"] / 2


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable`")  # its new name is not in all versions that are supported
def test_gradients_reach_the_copies_alone_also_where_layers_are_computed_again():
    model, ids = with_weights(tiny_model(), POLICY), random_ids(2, 40)
    model.requires_grad_(False)
    own = own_weights(model)
    for weight in own.values():
        weight.requires_grad_(True)
    with apply(model, POLICY, warn=False):
        model.train()
        model(ids, labels=ids, use_cache=False).loss.backward()
        assert {name for name, value in model.named_parameters() if value.grad is not None} == own.keys()
        wanted = [weight.grad.clone() for weight in own.values()]
        assert all(bool(gradient.any()) for gradient in wanted)
        model.gradient_checkpointing_enable()
        ours = torch.autograd.grad(model(ids, labels=ids, use_cache=False).loss, list(own.values()))
        assert all(layer.gradient_checkpointing for layer in model.base_model.layers)
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(ours, wanted, strict=True))


def test_weights_are_copies_of_the_first_layers_and_the_last_norm():
    model = equip(tiny_model(), POLICY)
    named = {name.partition(".extensible.")[2].replace("/", "."): value for name, value in own_weights(model).items()}
    base = dict(model.base_model.named_parameters())
    assert named.keys() == {name for name in base if name.startswith(("layers.0.", "layers.1.", "norm.")) and "longreach" not in name}
    assert all(torch.equal(value, base[name]) and value.data_ptr() != base[name].data_ptr() for name, value in named.items())


def test_more_layers_than_the_model_has_are_refused():
    with pytest.raises(SpecError, match="extensible: layers=4: the model has 3"):
        equip(tiny_model(), Extensible(layers=4))


def test_other_layers_than_it_has_weights_for_are_refused():
    fewer = Extensible(chunk_size=CHUNK, ratio=RATIO, layers=1)
    with pytest.raises(UnsupportedError, match="no weights for it"), apply(equip(tiny_model(), fewer), POLICY):
        pass
    with pytest.raises(SpecError, match="layers=1: the model has weights for more"), apply(equip(tiny_model(), POLICY), fewer):
        pass


def test_packed_weights_are_refused():
    model = tiny_model()
    model.model.layers[0].mlp.up_proj.weight = nn.Parameter(torch.zeros(8, 1, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UnsupportedError, match=r"packed \(layers.0.mlp.up_proj.weight\)"):
        first_layers(model, 1)


def test_it_reaches_until_the_embeddings_and_a_chunk_fill_the_window():
    # 25 chunks; the next one begins behind 25 * 16 embeddings, and its first 112 tokens still fit.
    assert reach_of((Extensible(chunk_size=128, ratio=8),), 512) == 128 + (512 - 128) * 8 + 112


def test_training_draws_ratios_that_fit_the_window():
    rng, policy = np.random.default_rng(0), Extensible(chunk_size=128, ratio=16)
    assert {policy.drawn(rng, 1024, 512).ratio for _ in range(40)} == {4, 8, 16, 32}
    assert policy.drawn(rng, 100_000, 512) == policy  # none fits
