import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3NextConfig

from longreach.diagnosis.memory import SHARE, Layer, MemoryPlan, computed, weigh
from longreach.testing.models import tiny_model


def plan(layers, *, free=10**6, weights=10**5, batch_size=1):
    return MemoryPlan(
        dtype="float32", device="cpu", batch_size=batch_size, weights=weights, free=free, layers=layers, measured=True, computed_per_1k=None
    )


def test_full_layers_are_weighed_to_the_byte():
    # 3 layers; keys and values; 2 heads; 16 dims; 4 bytes
    assert weigh(tiny_model("llama")) == (Layer(per_token=2 * 2 * 16 * 4),) * 3
    assert weigh(tiny_model("llama").to(torch.bfloat16)) == (Layer(per_token=2 * 2 * 16 * 2),) * 3


def test_sliding_layers_keep_their_window():
    sliding, full = Layer(per_token=256.0, limit=7), Layer(per_token=256.0)
    assert weigh(tiny_model("gemma3")) == (sliding, full, sliding)  # window 8: the query is one of them
    assert weigh(tiny_model("gemma3", sliding_window=100)) == (Layer(per_token=256.0, limit=99), full, Layer(per_token=256.0, limit=99))


def test_states_of_recurrent_layers_are_fixed():
    config = Qwen3NextConfig(
        hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=97, num_experts=4,
        intermediate_size=32, moe_intermediate_size=32, shared_expert_intermediate_size=32, num_experts_per_tok=2,
    )  # fmt: skip
    *recurrent, full = weigh(AutoModelForCausalLM.from_config(config).eval())
    assert all(layer.per_token == 0 and layer.fixed > 0 for layer in recurrent)
    assert full == Layer(per_token=2 * 2 * 16 * 4)


@pytest.mark.parametrize("family", ["llama", "gemma3", "mistral", "gpt_neox", "cohere2"])
def test_a_shape_without_weights_weighs_the_same(family):
    model = tiny_model(family)
    with torch.device("meta"):
        shape = AutoModelForCausalLM.from_config(model.config)
    assert weigh(shape.eval()) == weigh(model)


def test_the_config_alone_is_wrong_on_hybrids():
    model = tiny_model("gemma3")
    assert computed(model.config, torch.float32) == 3 * 2 * 2 * 16 * 4 * 1024
    assert plan(weigh(model)).per_1k == 2 * 2 * 16 * 4 * 1024


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_longest_context_is_the_longest_that_fits(batch_size):
    layers = (Layer(per_token=100.0), Layer(per_token=100.0, limit=50), Layer(per_token=0.0, fixed=1000.0))
    room = SHARE * 10**6 - 10**5
    found = plan(layers, batch_size=batch_size)

    def peak(tokens):  # the largest layer stands twice while it is copied
        return batch_size * (200 * tokens + 100 * min(tokens, 50) + 1000)

    assert found.fits > 0
    assert peak(found.fits) <= room < peak(found.fits + 1)
    assert found.cache_bytes(10) == batch_size * 3000


def test_what_does_not_fit_and_what_cannot_be_known():
    layer = (Layer(per_token=100.0),)
    assert plan(layer, weights=10**6).fits == 0
    assert plan(layer, free=None).fits is None
    assert plan(layer, weights=None).fits is None
    assert plan(()).fits is None
    assert not plan(layer).unlimited
    assert plan((Layer(per_token=100.0, limit=9),)).unlimited
    assert plan((Layer(per_token=100.0, limit=9),)).fits is None
