"""Log-n scaling a second time, from arXiv:2202.12172 (section 5.3): logits times log n, where n is the number of tokens."""

import math

import pytest
import torch

from longreach.attention.scaling.log_n import LogN
from longreach.core.bands import LayerContext
from longreach.engine.apply import apply
from longreach.testing.models import random_ids, tiny_model

LAYER = LayerContext(layer_idx=0, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8, hidden_size=8, trained_window=32)


@pytest.mark.parametrize("window", [None, 2, 16, 100])
def test_queries_beyond_the_window_are_scaled_by_the_log_of_their_place(window):
    base = window or LAYER.trained_window
    wanted = [max(1.0, math.log(n) / math.log(base)) for n in range(1, 301)]  # the query at index n - 1 sees n tokens
    found = LogN(window_size=window).temperature(torch.arange(300)[None], LAYER)
    torch.testing.assert_close(found[0].double(), torch.tensor(wanted).double(), rtol=1e-6, atol=0)


def test_it_decides_nothing_else():
    assert LogN().views(LAYER) is None
    relative, visible = LogN().reference(torch.tensor(5), torch.tensor([3, 5, 6]))
    assert relative.tolist() == [2, 0, -1]
    assert visible.tolist() == [True, True, False]


def test_scaled_queries_give_the_same():
    # log n / log window on the logits of a token is the same factor on its query: done to the model's own query projection.
    model, ids, window = tiny_model(max_position_embeddings=32, num_hidden_layers=1), random_ids(1, 50), 16
    factors = torch.tensor([max(1.0, math.log(n) / math.log(window)) for n in range(1, 51)])
    with torch.no_grad():
        hook = model.model.layers[0].self_attn.q_proj.register_forward_hook(lambda module, args, output: output * factors[:, None])
        wanted = model(ids, use_cache=False).logits
        hook.remove()
        with apply(model, LogN(window_size=window)):
            ours = model(ids, use_cache=False).logits
        assert (model(ids, use_cache=False).logits - wanted).abs().max() > 0.1
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("positions", ["yarn:factor=4", "linear:factor=4", "llama3:factor=4", "dynamic_ntk:factor=2"])
def test_the_window_is_what_the_model_was_trained_on_whatever_positions_are_scaled_to(positions):
    """Under YaRN a model's config tells the window that the frequencies reach, and log_n would wait for its end."""
    model, ids = tiny_model(), random_ids(1, 200)
    found = []
    for spec in (positions, f"{positions}+log_n", f"{positions}+log_n:window_size={model.config.max_position_embeddings}"):
        with apply(model, spec, warn=False):
            found.append(model(ids).logits)
    plain, sharpened, stated = found
    assert torch.equal(sharpened, stated)
    assert not torch.allclose(sharpened[:, -1], plain[:, -1], atol=1e-4)
