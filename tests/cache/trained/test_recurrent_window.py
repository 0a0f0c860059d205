"""Windows that are read one after the other, held to a loop over them in float64; what is carried, and how far it is carried."""

from contextlib import ExitStack

import pytest
import torch
from transformers import DynamicCache

from longreach.cache.trained.recurrent_window import RecurrentWindow
from longreach.core.errors import LongreachError, SpecError
from longreach.engine import rotation
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.contexts import HOLDER
from longreach.engine.interface import interface
from longreach.engine.weights import equip, own_weights
from longreach.testing.models import random_ids, tiny_model
from tests.cache.trained.test_focused import gradients, turned

WINDOW = 8


def equipped(method, size=0.3):
    """A tiny model in float64 with random weights of the method's own."""
    model = equip(tiny_model(), method)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in own_weights(model).values():
            weight.add_(torch.randn(weight.shape, generator=generator) * size)
    return model.double()


def window_by_window(model, ids, from_layer, into_layer):
    """Logits [B, T, V]: each window is a text of its own, in which one layer has one key and value more, made of the window before."""
    network = getattr(model.model.layers[into_layer].self_attn, HOLDER)["recurrent_window"]
    carried, seen, logits, begins = None, {}, [], 0

    def attention(module, q, k, v, mask, **options):
        count, groups = q.shape[2], q.shape[1] // k.shape[1]
        places, outs = torch.arange(count), []
        for row in range(len(q)):
            for head in range(q.shape[1]):
                values = v[row, head // groups]
                products = turned(q[row, head], begins + places) @ turned(k[row, head // groups], begins + places).T
                products = products.masked_fill(torch.ones(count, count, dtype=torch.bool).triu(1), -torch.inf)
                if module.layer_idx == into_layer and carried is not None:
                    key, value = carried[row].view(2, k.shape[1], -1)[:, head // groups]
                    products = torch.cat([products, (turned(q[row, head], places) @ key)[:, None]], 1)
                    values = torch.cat([values, value[None]])
                outs.append((products * options["scaling"]).softmax(-1) @ values)
        return torch.stack(outs).view(len(q), q.shape[1], count, -1).transpose(1, 2), None

    def see(module, args, kwargs):
        seen["hidden"] = kwargs["hidden_states"]

    with ExitStack() as undo:
        undo.callback(model.model.layers[from_layer].self_attn.register_forward_pre_hook(see, with_kwargs=True).remove)
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, "by_window", attention))
        for window in ids.split(WINDOW, 1):
            logits.append(model(window, use_cache=False).logits)
            x = seen["hidden"].mean(1)
            x = torch.nn.functional.gelu(x @ network["first"].T + network["first_bias"])
            x = torch.nn.functional.gelu(x @ network["second"].T + network["second_bias"])
            carried, begins = x @ network["third"].T + network["third_bias"], begins + WINDOW
    return torch.cat(logits, 1)


@pytest.mark.parametrize(("from_layer", "into_layer"), [(2, 1), (0, 2), (1, 1)])
def test_logits_and_gradients_are_those_of_windows_read_one_after_the_other(from_layer, into_layer):
    method = RecurrentWindow(window_size=WINDOW, from_layer=from_layer, into_layer=into_layer)
    model, ids = equipped(method), random_ids(2, 4 * WINDOW - 3)
    wanted = window_by_window(model, ids, from_layer, into_layer)
    with apply(model, method):
        found = model(ids, use_cache=False).logits
    assert torch.allclose(found, wanted, rtol=0, atol=1e-10)
    for ours, theirs in zip(gradients(found.square().mean(), model), gradients(wanted.square().mean(), model), strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 + 1e-9 * float(theirs.abs().max()))


def test_by_default_the_last_layer_is_pooled_for_the_middle_one():
    model, ids = equipped(RecurrentWindow(window_size=WINDOW)), random_ids(1, 3 * WINDOW)
    assert {name.split(".")[2] for name in own_weights(model)} == {"1"}
    with torch.no_grad():
        wanted = window_by_window(model, ids, 2, 1)
        with apply(model, RecurrentWindow(window_size=WINDOW)):
            assert torch.allclose(model(ids).logits, wanted, rtol=0, atol=1e-10)


def test_before_training_what_is_carried_gives_nothing():
    model, method = equip(tiny_model(), RecurrentWindow(window_size=WINDOW)), RecurrentWindow(window_size=WINDOW)
    ids = random_ids(1, 2 * WINDOW)
    other = torch.cat([random_ids(1, WINDOW, seed=1), ids[:, WINDOW:]], 1)
    with apply(model, method), torch.no_grad():
        assert torch.equal(model(ids).logits[:, WINDOW:], model(other).logits[:, WINDOW:])


@pytest.mark.parametrize(("from_layer", "into_layer", "windows"), [(2, 1, 2), (0, 1, 1)])
def test_states_of_later_layers_are_carried_through_all_windows_and_those_of_earlier_ones_through_one(from_layer, into_layer, windows):
    method = RecurrentWindow(window_size=WINDOW, from_layer=from_layer, into_layer=into_layer)
    model, ids = equipped(method), random_ids(1, 4 * WINDOW)
    with apply(model, method), torch.no_grad():
        before = model(ids).logits
        ids[0, 2] = (ids[0, 2] + 1) % 90
        moved = (model(ids).logits - before).abs().amax(-1)[0]
    assert moved[WINDOW : 2 * WINDOW].min() > 0
    assert (moved[2 * WINDOW :].min() > 0) == (windows > 1)


def test_a_cache_holds_a_window_and_one_key():
    method = RecurrentWindow(window_size=WINDOW)
    model = equipped(method)
    cache = DynamicCache(config=model.config)
    with apply(model, method, warn=False), torch.no_grad():
        for part in random_ids(1, 10 * WINDOW + 3).split(1, 1):
            model(part, **cache_argument(model, cache), use_cache=True)
            assert max(len(layer.recent) for layer in cache.layers) <= WINDOW + 1  # which a crop may take back
        (row,) = cache.layers[1].store.rows.values()
        assert row.state.k.shape == row.state.v.shape == (1, 2, 1, 16)
        assert [layer.store is None for layer in cache.layers] == [True, False, True]


def test_what_cannot_be_read_in_windows_is_refused():
    method = RecurrentWindow(window_size=WINDOW)
    model, ids = equipped(method), random_ids(2, 20)
    with apply(model, method):
        with pytest.raises(LongreachError, match="goes by the hidden states of windows, and here are embeddings in their place"):
            model(inputs_embeds=model.get_input_embeddings()(ids))
        with pytest.raises(LongreachError, match="positions that skip or begin anew"):
            model(ids, position_ids=torch.arange(20)[None] * 2, use_cache=False)


@pytest.mark.parametrize("setting", ["from_layer", "into_layer"])
def test_layers_that_are_not_there_are_refused(setting):
    with pytest.raises(SpecError, match=f"{setting}=3: the model has 3 layers"):
        equip(tiny_model(), RecurrentWindow(window_size=WINDOW, **{setting: 3}))
