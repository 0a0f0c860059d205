import pytest
import torch
from transformers import DynamicCache

from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.positions.scaling.dynamic_ntk import DynamicNtk
from longreach.positions.scaling.ntk import Ntk
from longreach.testing.models import random_ids, tiny_model
from tests.positions.ropes import ROPES, assert_close, in_transformers


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("factor", [1, 2.5])
@pytest.mark.parametrize("windows", [0.5, 1, 1.5, 8])
def test_the_base_follows_the_length(rope, factor, windows):
    # emozilla's post: base * ((factor * L / window) - (factor - 1)) ** (d / (d - 2)) once L is beyond the window.
    length = int(windows * rope.trained_window)
    base = rope.theta
    if length > rope.trained_window:
        base *= (factor * length / rope.trained_window - (factor - 1)) ** (rope.dim / (rope.dim - 2))
    ours, attention_factor = DynamicNtk(factor=factor).inv_freq(rope, length)
    assert_close(ours, [base ** (-2 * i / rope.dim) for i in range(rope.dim // 2)])
    assert attention_factor == 1.0


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("windows", [0.5, 1, 3])
def test_it_agrees_with_transformers(rope, windows):
    length = int(windows * rope.trained_window)
    ours, _ = DynamicNtk(factor=2).inv_freq(rope, length)
    theirs, _ = in_transformers(rope, "dynamic", seq_len=length, factor=2.0)
    assert_close(ours, theirs)


def test_the_last_token_of_a_step_sees_all_under_its_own_base():
    # At the end of a step the rounded length is the true one, and the logits are those of static NTK with that base for every key.
    model, ids, length, window = tiny_model(max_position_embeddings=32), random_ids(1, 64), 64, 32
    with torch.no_grad():
        with apply(model, DynamicNtk(step=16)):
            ours = first_layer_last_logits(model, ids)
        with apply(model, Ntk(factor=length / window)):
            wanted = first_layer_last_logits(model, ids)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


def first_layer_last_logits(model, ids):
    """Output of the first attention layer for the last token: later layers see hidden states made under earlier bases."""
    found = []
    hook = model.model.layers[0].self_attn.register_forward_hook(lambda module, args, output: found.append(output[0][:, -1]))
    model(ids, use_cache=False)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("step", [1, 7, 100])
def test_inside_the_window_nothing_changes_whatever_the_step(step):
    model, ids = tiny_model(max_position_embeddings=32), random_ids(2, 40)
    with torch.no_grad():
        stock = model(ids, use_cache=False).logits
        with apply(model, DynamicNtk(step=step)):
            past = DynamicCache(config=model.config)
            ours = torch.cat([model(part, **cache_argument(model, past)).logits for part in ids.split(10, 1)], 1)
    torch.testing.assert_close(ours[:, :32], stock[:, :32], rtol=0, atol=1e-4)
    assert (ours[:, 32] - stock[:, 32]).abs().max() > 0.01
