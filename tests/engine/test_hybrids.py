"""Models with attention in some of their layers, or beside a state in each: attention is run, and the states go on as they do without."""

import pytest
import torch
import transformers
from transformers import DynamicCache

from longreach.core.errors import LongreachError, UnsupportedError
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.snapshots import snapshot as snapshot_of
from longreach.engine.weights import equip
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.conformance.base import left_padding, logits, written
from longreach.testing.models import VOCABULARY, random_ids, randomize
from longreach.testing.naive import naive_logits

LENGTH, CHUNKS = 50, (13, 9, 1, 27)
TOLERANCE = 1e-3  # of logits with a standard deviation of 1 to 2: states are summed up in another order in chunks
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1}
LINEAR = {"layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 16, "linear_value_head_dim": 16}
GATED = {**LINEAR, "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
HYBRIDS = {
    "FalconH1": {"mamba_d_ssm": 64, **MAMBA, "mamba_n_heads": 4},  # attention and a state in each layer
    "GraniteMoeHybrid": {
        "layer_types": ["mamba", "attention"], **MAMBA, "num_local_experts": 2, "num_experts_per_tok": 1, "shared_intermediate_size": 32,
        "position_embedding_type": "rope",
    },
    "Qwen3Next": {**GATED, **EXPERTS},
    "Qwen3_5": GATED,  # positions in three dimensions
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "OlmoHybrid": {**LINEAR, "linear_num_key_heads": 4, "linear_num_value_heads": 4},
}  # fmt: skip
SPECS = (
    "self_extend:neighbours=10,group=4+log_n:window_size=16",
    "sinks:num_sinks=3,window_size=12",
    "h2o:budget=16,slack=4",
    "dynamic_ntk:step=16",
)


@pytest.fixture(params=HYBRIDS)
def model(request):
    config = getattr(transformers, f"{request.param}TextConfig", None) or getattr(transformers, f"{request.param}Config")
    return randomize(getattr(transformers, f"{request.param}ForCausalLM")(config(**COMMON, **HYBRIDS[request.param])).eval())


@torch.no_grad()
def in_chunks(model, ids):
    cache, parts = DynamicCache(config=model.config), []
    for part in ids.split(CHUNKS, 1):
        parts.append(model(part, **cache_argument(model, cache), use_cache=True).logits)
    return torch.cat(parts, 1), cache


def test_full_attention_is_the_model_itself(model):
    ids, mask = random_ids(2, LENGTH), left_padding((LENGTH - 11, LENGTH))
    stock, chunked, padded = logits(model, ids), in_chunks(model, ids)[0], logits(model, ids, mask)
    beams = written(model, ids, mask, num_beams=2)
    before = snapshot(model)
    with apply(model, "full"):
        assert torch.equal(logits(model, ids), stock)
        torch.testing.assert_close(in_chunks(model, ids)[0], chunked, rtol=0, atol=1e-4)
        torch.testing.assert_close(logits(model, ids, mask)[mask.bool()], padded[mask.bool()], rtol=0, atol=1e-4)
        assert torch.equal(written(model, ids, mask, num_beams=2), beams), "states follow their beams"
    unchanged(before, snapshot(model), "after the context")


@pytest.mark.parametrize("spec", SPECS)
def test_methods_are_what_they_are_defined_as(model, spec):
    ids, mask = random_ids(2, LENGTH), left_padding((LENGTH - 11, LENGTH))
    stock, before = logits(model, ids), snapshot(model)
    with torch.no_grad():
        wanted, wanted_padded = naive_logits(model, parse(spec), ids), naive_logits(model, parse(spec), ids, mask.bool())
    with apply(model, spec):
        ours = logits(model, ids)
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)
        torch.testing.assert_close(in_chunks(model, ids)[0], ours, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(logits(model, ids, mask)[mask.bool()], wanted_padded[mask.bool()], rtol=0, atol=1e-4)
        assert torch.equal(written(model, ids, mask), written(model, ids, mask, use_cache=False))
    unchanged(before, snapshot(model), "after the context")
    assert torch.equal(logits(model, ids), stock)
    assert (ours - stock).abs().max() > 0.1


@pytest.mark.parametrize("spec", ["yarn:factor=2", "ntk:factor=4+resonance"])
def test_frequencies(model, spec):
    ids = random_ids(2, LENGTH)
    stock, before = logits(model, ids), snapshot(model)
    with apply(model, spec):
        ours = logits(model, ids)
        torch.testing.assert_close(in_chunks(model, ids)[0], ours, rtol=0, atol=TOLERANCE)
    unchanged(before, snapshot(model), "after the context")
    assert torch.equal(logits(model, ids), stock)
    assert (ours - stock).abs().max() > 0.1


@pytest.mark.parametrize("spec", ["yarn:factor=2", "full"])
def test_caches_do_not_outlive_the_method(model, spec):
    ids = random_ids(1, LENGTH)
    with apply(model, spec):
        _, cache = in_chunks(model, ids)
        with pytest.raises(LongreachError, match="has no snapshots"):
            snapshot_of(cache)
    with pytest.raises(LongreachError, match="no longer applied; start with a new cache"):
        model(ids, **cache_argument(model, cache), use_cache=True)


def test_images_are_refused_where_positions_have_three_dimensions():
    model = transformers.Qwen3_5ForCausalLM(transformers.Qwen3_5TextConfig(**COMMON, **HYBRIDS["Qwen3_5"])).eval()
    ids = random_ids(1, 8)
    places = torch.arange(8).expand(3, 1, 8).clone()
    with apply(model, "full"):
        model(ids, position_ids=places, use_cache=False)
        places[1] += 1
        with pytest.raises(LongreachError, match="this model reads text alone; leave out images"):
            model(ids, position_ids=places, use_cache=False)


def test_inserted_tokens_are_refused(model):
    with (
        pytest.raises(UnsupportedError, match="states of its layers, which inserted tokens would change"),
        apply(equip(model, "landmark"), "landmark"),
    ):
        pass
