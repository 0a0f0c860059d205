"""Training among texts: what queries see of other rows, held to concatenated keys in float64, and what they must not see."""

from contextlib import ExitStack

import pytest
import torch
from transformers import DynamicCache

from longreach.cache.trained.focused import Focused
from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.engine import rotation
from longreach.engine.among import among_texts, set_texts
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.interface import interface
from longreach.testing.models import random_ids, tiny_model

WINDOW = 8


def turned(x, places, theta=10000.0):
    """x [n, D] rotated to the places [n], by the formula of rotary positions; angles in float32, as models have them."""
    half = x.shape[-1] // 2
    angles = places[:, None].float() * (1.0 / theta ** (torch.arange(0, 2 * half, 2).float() / (2 * half)))
    first, second, cos, sin = x[:, :half], x[:, half:], angles.cos().double(), angles.sin().double()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


def concatenated(q, k, v, row, texts, remembers, scale):
    """Attention output [H, T, D] of one row: for every window the keys of its own, and of the memory of `texts` rows, in one softmax."""
    outs = []
    for head in range(q.shape[1]):
        group, parts = head // (q.shape[1] // k.shape[1]), []
        for begin in range(0, q.shape[2], WINDOW):
            part = slice(begin, min(begin + WINDOW, q.shape[2]))
            places = torch.arange(part.stop - part.start)
            products = [turned(q[row, head, part], begin + places) @ turned(k[row, group, part], begin + places).T]
            values = [v[row, group, part]]
            for other in range(row, row + texts) if remembers else ():
                products.append(turned(q[row, head, part], places) @ turned(k[other % len(k), group, :begin], torch.zeros(begin)).T)
                values.append(v[other % len(k), group, :begin])
            logits = torch.cat(products, 1) * scale
            unseen = torch.ones(len(places), len(places), dtype=torch.bool).triu(1)
            unseen = torch.cat([unseen, torch.zeros(len(places), logits.shape[1] - len(places), dtype=torch.bool)], 1)
            parts.append(logits.masked_fill(unseen, -torch.inf).softmax(-1) @ torch.cat(values))
        outs.append(torch.cat(parts))
    return torch.stack(outs)


def naive_loss(model, ids, texts, layers):
    """The loss under concatenated keys, by transformers with its rotation and its attention taken out."""

    def attention(module, q, k, v, mask, **options):
        scale, remembers = options["scaling"], module.layer_idx in layers
        rows = [concatenated(q, k, v, row, texts, remembers, scale) for row in range(len(q))]
        return torch.stack(rows).transpose(1, 2), None

    with ExitStack() as undo:
        undo.enter_context(rotation.identity_rotary(model))
        undo.enter_context(interface(model, "concatenated", attention))
        return loss(model, ids)


def loss(model, ids):
    """Of the next token, in the model's own precision: transformers' loss is in float32."""
    return torch.nn.functional.cross_entropy(model(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def gradients(of, model):
    return torch.autograd.grad(of, list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize(("texts", "layers", "top_k"), [(1, "1", None), (2, "1", None), (4, "0/2", 3)])
def test_loss_and_gradients_among_texts_are_those_of_concatenated_keys(texts, layers, top_k):
    model, ids = tiny_model().double(), random_ids(4, 3 * WINDOW - 3)
    wanted = naive_loss(model, ids, texts, [int(layer) for layer in layers.split("/")])
    with apply(model, Focused(window_size=WINDOW, layers=layers, top_k=top_k if texts > 1 else None)), among_texts(model, texts):
        found = loss(model, ids)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)
    for ours, theirs in zip(gradients(found, model), gradients(wanted, model), strict=True):
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert torch.allclose(ours, theirs, rtol=0, atol=1e-12 + 1e-9 * float(theirs.abs().max()))


def influence(texts):
    """[row, T, other row, T]: how much each token's embedding moves each token's last state, under one layer with a memory."""
    model, ids = tiny_model(), random_ids(3, 2 * WINDOW)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    with apply(model, Focused(window_size=WINDOW, layers="1")), among_texts(model, texts):
        states = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state.square().sum(-1)
        return torch.stack(
            [
                torch.autograd.grad(states[row, token], embedded, retain_graph=True)[0].abs().sum(-1)
                for row in range(3)
                for token in range(2 * WINDOW)
            ]
        ).view(3, 2 * WINDOW, 3, 2 * WINDOW)


def test_gradients_reach_the_next_texts_keys_and_no_token_of_their_current_window():
    moved = influence(texts=2) > 0
    for row in range(3):
        after, last = (row + 1) % 3, (row + 2) % 3
        assert moved[row, WINDOW:, after, :WINDOW].all(), "the second window sees all of the next text's first"
        assert not moved[row, :, after, WINDOW:].any()
        assert not moved[row, :WINDOW, after].any()
        assert not moved[row, :, last].any()


def test_outside_of_training_rows_are_by_themselves():
    model, ids = tiny_model(), random_ids(3, 2 * WINDOW)
    with apply(model, Focused(window_size=WINDOW)), torch.no_grad():
        alone = model(ids).logits
        with among_texts(model, 3):
            assert (model(ids).logits - alone).abs().max() > 1e-2
        assert torch.equal(model(ids).logits, alone)


def test_layers_without_a_memory_keep_one_window():
    model = tiny_model()
    cache = DynamicCache(config=model.config)
    with apply(model, Focused(window_size=WINDOW, layers="1"), warn=False), torch.no_grad():
        for part in random_ids(1, 50).split(10, 1):
            model(part, **cache_argument(model, cache), use_cache=True)
        model(random_ids(1, 1), **cache_argument(model, cache), use_cache=True)
        assert [len(layer.recent) for layer in cache.layers] == [WINDOW, 51, WINDOW]


@pytest.mark.parametrize(("layers", "chosen"), [(26, (6, 12, 18)), (32, (8, 16, 24)), (5, (1, 2, 3)), (3, (1, 2)), (1, (0,))])
def test_by_default_a_quarter_half_and_three_quarters_of_the_layers_remember(layers, chosen):
    model = tiny_model(num_hidden_layers=layers)
    cache = DynamicCache(config=model.config)
    with apply(model, Focused(window_size=WINDOW), warn=False), torch.no_grad():
        model(random_ids(1, 20), **cache_argument(model, cache), use_cache=True)
        model(random_ids(1, 1), **cache_argument(model, cache), use_cache=True)
    assert tuple(index for index, layer in enumerate(cache.layers) if len(layer.recent) == 21) == chosen


def test_many_texts_come_late():
    few, many = Focused(window_size=8, texts=8), Focused(window_size=8, texts=64)
    assert [few.texts_at(progress) for progress in (0.0, 0.5, 0.95)] == [8, 8, 8]
    assert [many.texts_at(progress) for progress in (0.0, 0.89, 0.9, 0.99)] == [2, 2, 64, 64]


def test_what_cannot_be_trained_among_texts_is_refused():
    model, ids = tiny_model(), random_ids(2, 20)
    with pytest.raises(InputError, match="apply one first"):
        set_texts(model, 2)
    with apply(model, Focused(window_size=WINDOW)):
        with among_texts(model, 3), pytest.raises(LongreachError, match="3 texts cannot be trained among each other in a batch of 2"):
            model(ids)
        mask = torch.ones_like(ids)
        mask[0, :4] = 0
        with among_texts(model, 2), pytest.raises(LongreachError, match="leave padding out"):
            model(ids, attention_mask=mask)
    with pytest.raises(SpecError, match="layers=3: the model has 3 layers"), apply(model, Focused(window_size=WINDOW, layers="3")):
        pass


@pytest.mark.parametrize("top_k", [None, 3])
def test_padding_behind_a_text_changes_nothing(top_k):
    model, ids = tiny_model(), random_ids(2, 30)
    mask = torch.ones_like(ids)
    mask[0, 21:] = 0
    with apply(model, Focused(window_size=WINDOW, layers="0/1", top_k=top_k)), torch.no_grad():
        padded, alone = model(ids, attention_mask=mask).logits, model(ids[:1, :21]).logits
    assert torch.allclose(padded[:1, :21], alone, atol=1e-5)
