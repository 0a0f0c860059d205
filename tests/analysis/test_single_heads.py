"""Heads are taken out where their outputs meet, on every family, and put back."""

import pytest
import torch

from longreach.analysis.single_heads import observed, without_heads
from longreach.core.errors import UnsupportedError
from longreach.engine._own import own_attention
from longreach.engine.examine import examine
from longreach.engine.interface import interface
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import logits
from longreach.testing.models import FAMILIES, random_ids, tiny_model

IDS = random_ids(1, 24)


def zeroing(model, attentions, heads):
    """The same by other means: the model's attention, whose output is zero for these heads."""
    layers = {id(attention.module): index for index, attention in enumerate(attentions)}
    own = model.config.get_text_config()._attn_implementation

    def attend(module, query, key, value, mask, **options):
        out = own_attention(module, own, options)(query, key, value, mask.own_mask(own)).clone()
        for layer, head in heads:
            if layer == layers[id(module)]:
                out[:, :, head] = 0
        return out, None

    return interface(model, "zeroing", attend)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_output_of_the_heads_is_zero_and_comes_back(family):
    model = tiny_model(family)
    attentions, stock = examine(model, 128), logits(model, IDS)
    heads, before = [(0, 1), (2, 0), (2, 3)], snapshot(model)
    with zeroing(model, attentions, heads):
        wanted = logits(model, IDS)
    with without_heads(model, attentions, heads):
        found = logits(model, IDS)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert float((found - stock).abs().max()) > 1e-3
    assert unchanged(before, snapshot(model), "afterwards")
    assert torch.equal(logits(model, IDS), stock)


def test_no_heads_are_no_change_and_an_exception_puts_them_back():
    model = tiny_model()
    attentions, stock = examine(model, 128), logits(model, IDS)
    with without_heads(model, attentions, []):
        assert torch.equal(logits(model, IDS), stock)
    with pytest.raises(KeyError), without_heads(model, attentions, [(1, 2)]):
        raise KeyError
    assert torch.equal(logits(model, IDS), stock)


def test_a_model_whose_heads_meet_nowhere_is_refused():
    model = tiny_model()
    attentions = examine(model, 128)
    model.model.layers[1].self_attn.o_proj = torch.nn.Identity()
    with (
        pytest.raises(UnsupportedError, match="the output projection of its attention layer 1 was not found"),
        without_heads(model, attentions, [(0, 0)]),
    ):
        pass


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "qwen2_mixed", "falcon"])
def test_watching_changes_nothing(family):
    model = tiny_model(family)
    attentions, stock, seen = examine(model, 128), logits(model, IDS), {}

    def observer(layer, q, k, scale):
        seen[layer] = (q.shape, k.shape[2], scale)

    with observed(model, attentions, observer):
        assert torch.equal(logits(model, IDS), stock)
    assert sorted(seen) == [0, 1, 2]
    assert all(shape[1] == 4 and length == 24 and scale > 0 for shape, length, scale in seen.values())
