import copy

import pytest
import torch

from longreach.core.errors import InputError
from longreach.testing.models import random_ids
from longreach.training.adapters import add_adapters, merged
from tests.training.tuning import model


def logits(of, ids):
    with torch.no_grad():
        return of(ids, use_cache=False).logits


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_the_merged_model_says_what_the_adapters_said(family):
    plain, ids = model(family), random_ids(1, 30)
    before, names = logits(plain, ids), set(plain.state_dict())
    wrapped = add_adapters(plain, rank=4, alpha=8)
    assert torch.equal(logits(wrapped, ids), before), "new adapters change nothing"
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in wrapped.named_parameters():
            if "lora" in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    adapted = logits(wrapped, ids)
    assert (adapted - before).abs().max() > 0.1
    whole = merged(wrapped)
    assert (logits(whole, ids) - adapted).abs().max() < 1e-4
    assert set(whole.state_dict()) == names
    copy.deepcopy(whole)


def trained(wrapped):
    return {name.replace("base_model.model.", "") for name, value in wrapped.named_parameters() if value.requires_grad}


def test_what_is_trained():
    assert all("lora" in name for name in trained(add_adapters(model(), rank=2, alpha=2)))
    only = trained(add_adapters(model(), rank=2, alpha=2, targets=("q_proj", "layers.0.mlp.up_proj")))
    assert {name.partition(".lora")[0].rpartition(".")[2] for name in only} == {"q_proj", "up_proj"}
    assert sum("up_proj" in name for name in only) == 2
    more = {name for name in trained(add_adapters(model(), rank=2, alpha=2, parts=("embeddings", "norms"))) if "lora" not in name}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.input_layernorm.weight"} <= more
    assert all("embed" in name or "head" in name or "norm" in name for name in more)


def test_a_target_that_matches_nothing_is_refused():
    plain = model()
    names = set(plain.state_dict())
    with pytest.raises(InputError, match="LoRA target 'query' matches no linear layer of LlamaForCausalLM; it has .*q_proj"):
        add_adapters(plain, rank=2, alpha=2, targets=("q_proj", "query"))
    assert set(plain.state_dict()) == names
