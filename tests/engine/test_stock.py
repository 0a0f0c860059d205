"""Models without a method: what they read in chunks is what transformers makes of the whole text, and caches that grow never change."""

import copy
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

import longreach
from longreach.decoding.reading import new_cache, prefill, read
from longreach.engine import stock
from longreach.engine.cache_argument import cache_argument
from longreach.engine.stock import GrowingLayer, stock_attention
from longreach.testing.models import random_ids, tiny_learned, tiny_model


@pytest.fixture
def pieces(monkeypatch):
    """Attention of this module from the first key on; how many pieces it computed."""
    counted = []
    attend = stock.attend

    def counting(*args, **kwargs):
        counted.append(args[0].shape[2])
        return attend(*args, **kwargs)

    monkeypatch.setattr(stock, "SHORT", 0)
    monkeypatch.setattr(stock, "attend", counting)
    return counted


def in_chunks(model, ids, sizes, **inputs):
    """Logits [B, T, V], read in parts of these sizes, one after the other."""
    cache, found, start = new_cache(model), [], 0
    for size in sizes:
        part = {name: value[:, : start + size] for name, value in inputs.items()}
        found += [logits for _, logits in read(model, ids[:, start : start + size], cache=cache, logits="all", **part)]
        start += size
    return torch.cat(found, 1)


FAMILIES = ("llama", "llama_mha", "llama_dynamic", "mistral", "qwen2_mixed", "gemma2", "gemma3", "phi3", "gpt_neox", "falcon", "granite")


@pytest.mark.parametrize("family", FAMILIES)
def test_chunks_are_the_whole_text(family, pieces):
    model = tiny_model(family).double()
    ids = random_ids(2, 31)
    with torch.no_grad():
        whole = model(ids).logits
    found = in_chunks(model, ids, [9, 5, 1, 1, 12, 3])
    assert (found - whole).abs().max() < 1e-10
    assert bool(pieces) == (family not in ("gemma2", "falcon")), "whose soft cap sdpa does not know; which calls it itself"


def test_learned_positions(pieces):
    model, ids = tiny_learned().double(), random_ids(1, 31)
    with torch.no_grad():
        whole = model(ids).logits
    assert (in_chunks(model, ids, [9, 5, 1, 1, 12, 3]) - whole).abs().max() < 1e-10
    assert pieces


def test_padding_is_left_to_the_model(pieces):
    model, ids = tiny_model().double(), random_ids(2, 20)
    mask = torch.ones_like(ids)
    mask[0, :6] = 0
    with torch.no_grad():
        whole = model(ids, attention_mask=mask).logits
    found = in_chunks(model, ids, [8, 7, 1, 4], attention_mask=mask)
    assert (found[mask.bool()] - whole[mask.bool()]).abs().max() < 1e-10
    assert not pieces


def test_short_texts_are_read_bit_for_bit_as_by_transformers():
    model, ids, cache = tiny_model(), random_ids(1, 24), DynamicCache()
    with torch.no_grad():
        held = cache_argument(model, cache)
        first, second = model(ids[:, :20], **held).logits, model(ids[:, 20:], **held).logits
    assert torch.equal(in_chunks(model, ids, [20, 4]), torch.cat([first, second], 1))


def test_outside_the_model_is_as_it_was(pieces):
    model, ids = tiny_model(), random_ids(1, 20)
    prefill(model, ids, cache=new_cache(model), chunk_size=8)
    assert model.config._attn_implementation == "sdpa"
    before = len(pieces)
    with torch.no_grad():
        model(ids)
    assert len(pieces) == before


def test_models_can_be_read_in_several_threads(pieces):
    models, ids = [tiny_model(seed=0), tiny_model(seed=1)], random_ids(1, 40)

    def last(model):
        return prefill(model, ids, cache=new_cache(model), chunk_size=4)

    wanted = [last(model) for model in models]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(last, models * 6))
    assert all(torch.allclose(logits, wanted[number % 2], atol=1e-5) for number, logits in enumerate(found))
    assert all(model.config._attn_implementation == "sdpa" for model in models)


def test_nothing_changes_under_a_method(pieces):
    model, ids = tiny_model(), random_ids(1, 20)
    with longreach.apply(model, "full"), stock_attention(model):
        prefill(model, ids, cache=new_cache(model), chunk_size=8)
    assert not pieces


def test_attention_that_is_not_sdpa_stays(pieces):
    model, ids = tiny_model(), random_ids(1, 20)
    model.set_attn_implementation("eager")
    prefill(model, ids, cache=new_cache(model), chunk_size=8)
    assert not pieces


# --- the layer


def tokens(count):
    return torch.randn(2, 2, count, 4), torch.randn(2, 2, count, 4)


@pytest.mark.parametrize("seed", range(20))
def test_a_growing_layer_is_a_dynamic_layer_whatever_happens(seed):
    """Two layers that share what they hold, as snapshots do; what one of them gave out never changes."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    ours, theirs = [GrowingLayer(), GrowingLayer()], [DynamicLayer(), DynamicLayer()]
    given = []
    for _ in range(60):
        each = rng.randrange(2)
        mine, wanted = ours[each], theirs[each]
        kind = rng.choice(["update", "update", "update", "crop", "share", "reorder", "copy", "reset"])
        held = wanted.get_seq_length()
        if kind == "update":
            new = tokens(rng.choice([1, 1, 2, 70]))
            for layer in (mine, wanted):
                layer.update(*new)
        elif kind == "crop" and held:
            count = rng.randint(1, held)
            for layer in (mine, wanted):
                layer.crop(-count)
        elif kind == "share" and held:  # as a snapshot puts back what it holds
            for layers in (ours, theirs):
                layers[1 - each].lazy_initialization(layers[each].keys, layers[each].values)
                layers[1 - each].keys, layers[1 - each].values = layers[each].keys, layers[each].values
        elif kind == "reorder" and held:
            for layer in (mine, wanted):
                layer.reorder_cache(torch.tensor([1, 0]))
        elif kind == "copy":
            ours[each] = copy.deepcopy(mine)
        elif kind == "reset" and not rng.randrange(4):
            for layer in (mine, wanted):
                layer.reset()
        for layer, right in zip(ours, theirs, strict=True):
            assert layer.get_seq_length() == right.get_seq_length()
            if right.get_seq_length():
                assert torch.equal(layer.keys, right.keys)
                assert torch.equal(layer.values, right.values)
                given.append((layer.keys, layer.keys.clone()))
        assert all(torch.equal(tensor, as_given) for tensor, as_given in given)


def test_new_tokens_are_written_behind_the_old_ones():
    layer = GrowingLayer()
    places = [layer.update(*tokens(size))[0].data_ptr() for size in [40, *[1] * 200]]
    assert len(set(places[1:])) == 1


def test_a_prompt_takes_no_more_room_than_it_needs():
    model, ids = tiny_model(), random_ids(1, 90)
    cache = new_cache(model)
    prefill(model, ids[:, :80], cache=cache, chunk_size=16)
    layer = cache.layers[0]
    assert layer.keys.untyped_storage().nbytes() == layer.keys.nbytes
    place = layer.keys.data_ptr()
    for at in range(80, 90):
        prefill(model, ids[:, at : at + 1], cache=cache)
    moved = layer.keys.data_ptr()
    assert moved != place
    prefill(model, ids[:, :1], cache=cache)
    assert layer.keys.data_ptr() == moved


def test_gradients_go_through():
    layer, (keys, values) = GrowingLayer(), tokens(3)
    keys.requires_grad_()
    layer.update(keys, values)
    held, _ = layer.update(*tokens(2))
    held.sum().backward()
    assert torch.equal(keys.grad, torch.ones_like(keys))
