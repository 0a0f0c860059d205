"""What policies add to logits: each against its paper's formula, and against the definition in stacks."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.bloom.modeling_bloom import build_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention

import longreach
from longreach.attention.bias.alibi import Alibi, alibi_slopes
from longreach.attention.bias.cable import Cable
from longreach.attention.bias.ntk_attention import NtkAttention
from longreach.attention.bias.rope_alibi import RopeAlibi, harmonic
from longreach.attention.bias.t5_bias import T5Bias
from longreach.core.bands import LayerContext
from longreach.core.errors import CheckpointError, LongreachError, UnsupportedError
from longreach.core.spec import parse
from longreach.engine.weights import OWN_WEIGHTS, own_weights
from longreach.testing.conformance.base import cached_logits, logits, with_weights
from longreach.testing.models import random_ids, tiny_model
from longreach.testing.naive import naive_logits
from tests.evaluation.samples import tokenizer


def layer(heads=4, **weights):
    return LayerContext(
        layer_idx=0, num_layers=2, num_heads=heads, num_kv_heads=heads, head_dim=8, hidden_size=32, trained_window=32, first=True,
        weights=weights,
    )  # fmt: skip


@pytest.mark.parametrize("heads", [1, 2, 4, 8, 12, 16, 20])
def test_alibi_slopes_are_blooms(heads):
    mask = torch.ones(1, 3, dtype=torch.long)
    theirs = build_alibi_tensor(mask, heads, torch.float32)[:, 0, 1]  # the bias of position 1
    assert alibi_slopes(heads) == pytest.approx(theirs.tolist(), rel=1e-6)


def test_alibi_falls_linearly_and_slower_under_a_factor():
    distance = torch.tensor([0, 1, 10])
    plain, quarter = Alibi().bias(distance, layer()), Alibi(factor=4).bias(distance, layer())
    assert torch.allclose(plain[:, 2], 10 * plain[:, 1])
    assert torch.allclose(quarter * 4, plain)
    assert plain[:, 0].abs().max() == 0


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 20), (16, 100)])
def test_t5_buckets_are_t5s(buckets, max_distance):
    distance = torch.arange(300)
    theirs = T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=buckets, max_distance=max_distance)
    assert torch.equal(T5Bias(buckets=buckets, max_distance=max_distance).bucket(distance), theirs)


def test_cable_is_the_cumulative_sum_of_softplus():
    hidden = torch.randn(2, 6, 32, generator=torch.Generator().manual_seed(0))
    own = {f"cable.{name}": value for name, value in Cable().weights(layer()).items()}
    aging = Cable().aging(hidden, layer(**own))
    for head in range(4):
        wanted = torch.log1p(torch.exp(hidden @ own["cable.weight"][head] + own["cable.bias"][head]))
        assert torch.allclose(aging[:, head], wanted, atol=1e-6)


def test_ntk_attention_is_the_papers_formula():
    """(A V + phi(Q) Z) / (A 1 + phi(Q) k) of one row, against the engine's merge."""
    model = with_weights(tiny_model("llama_mha"), NtkAttention())
    q, k, v = (torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in range(3))
    weights = {"ntk_attention.total": torch.randn(2, 8, 8), "ntk_attention.mass": torch.randn(2, 8)}
    total, mass = NtkAttention().prefix(q.float(), layer(2, **weights))
    attention = torch.exp(q @ k.mT / 8**0.5).tril()
    features = torch.where(q / 8**0.25 > 0, q / 8**0.25 + 1, torch.exp(q / 8**0.25))
    top = attention @ v + features @ weights["ntk_attention.total"].double()
    bottom = attention.sum(-1) + (features @ weights["ntk_attention.mass"].double().abs()[..., None])[..., 0]
    ours = (attention @ v + total.double()) / (attention.sum(-1) + mass.double())[..., None]
    assert torch.allclose(ours, top / bottom[..., None], atol=1e-5)
    assert sum(weight.numel() for weight in own_weights(model).values()) == 3 * 4 * (16 * 16 + 16)  # layers, heads, D^2 + D


def test_harmonic_numbers():
    wanted = [sum(1 / k for k in range(1, n + 1)) for n in (0, 1, 2, 10, 1000)]
    assert harmonic(torch.tensor([0.0, 1, 2, 10, 1000])).tolist() == pytest.approx(wanted, abs=1e-4)
    weight = RopeAlibi().bias(torch.tensor([100]), layer()).exp()[:, 0]
    assert weight.tolist() == pytest.approx([100**-slope * math.exp(-0.5772 * slope) for slope in alibi_slopes(4)], rel=0.01)


@pytest.mark.parametrize(
    "spec",
    [
        "self_extend:neighbours=8,group=4+alibi",
        "lm_infinite:num_sinks=2,window_size=8+t5_bias",
        "sinks:num_sinks=2,window_size=8+alibi",
        "sinks:num_sinks=2,window_size=8+cable",
        "lex:block_size=8+cable",
        "longheads:chunk_size=4,num_chunks=4+head_temperature:first=2",
        "log_n+head_temperature:first=2",
        "alibi+cable+ntk_attention",
    ],
)
def test_stacks_are_their_definition(spec):
    stack, ids = parse(spec), random_ids(2, 50)
    model = tiny_model(max_position_embeddings=32)
    for method in stack:
        with_weights(model, method)
    with torch.no_grad():
        wanted = naive_logits(model, stack, ids)
    with longreach.apply(model, stack):
        assert torch.allclose(logits(model, ids), wanted, atol=1e-4)
        assert torch.allclose(cached_logits(model, ids, (13, 1, 16, 20)), wanted, atol=1e-4)


@pytest.mark.parametrize("spec", ["nope+alibi", "nope+t5_bias", "nope+cable", "nope+head_temperature"])
def test_biases_stand_without_positions(spec):
    """Under nope the definition is that of a model whose queries and keys are not turned at all."""
    stack, ids = parse(spec), random_ids(1, 40)
    model = with_weights(tiny_model(max_position_embeddings=32), stack[1])
    with longreach.apply(model, stack):
        ours = logits(model, ids)
    for _, _, rotary in longreach.engine.rotation.rotary_modules(model):
        rotary.inv_freq.zero_()
    with torch.no_grad():
        assert torch.allclose(ours, naive_logits(model, stack[1:], ids), atol=1e-4)


def test_weights_are_asked_for():
    model = tiny_model()
    with (
        pytest.raises(UnsupportedError, match=r"it has no weights for it \(weight, bias\); instead: give it some|equip"),
        longreach.apply(model, "cable"),
    ):
        pass
    assert not own_weights(model)


def test_weights_are_saved_beside_the_checkpoint(tmp_path):
    model, ids = with_weights(tiny_model(), T5Bias()), random_ids(1, 20)
    with longreach.apply(model, "nope+t5_bias"):
        wanted = logits(model, ids)
    folder = longreach.save(model, tokenizer(), tmp_path / "model", method="nope+t5_bias", target=256)
    again = longreach.load(folder).model
    assert torch.equal(logits(again, ids), wanted)
    plain, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["unexpected_keys"]
    assert not own_weights(plain)
    (folder / OWN_WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="lacks 1 of the methods' weights"):
        longreach.load(folder)


def test_weights_are_kept_whichever_method_a_checkpoint_is_for(tmp_path):
    model = with_weights(tiny_model(), Cable())
    folder = longreach.save(model, tokenizer(), tmp_path / "model")
    again = own_weights(longreach.load(folder).model)
    assert again.keys() == own_weights(model).keys()
    assert all(torch.equal(again[name], weight) for name, weight in own_weights(model).items())


def test_equipping_twice_keeps_what_is_there():
    model = with_weights(tiny_model(), Cable())
    before = {name: value.clone() for name, value in own_weights(model).items()}
    longreach.equip(model, "cable+t5_bias")
    after = own_weights(model)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert len(after) == len(before) + 1


def test_a_bias_counts_positions_that_skip_and_refuses_holes():
    model, ids = tiny_model(max_position_embeddings=32), random_ids(1, 12)
    places = torch.cat([torch.arange(6), torch.arange(20, 26)])[None]
    ones = torch.ones_like(ids)
    with longreach.apply(model, "nope+alibi"), torch.no_grad():
        skipping = model(ids, position_ids=places, attention_mask=ones, use_cache=False).logits
        running = model(ids, attention_mask=ones, use_cache=False).logits
        assert torch.allclose(skipping[:, :6], running[:, :6], atol=1e-5)
        assert float((skipping[:, 6:] - running[:, 6:]).abs().max()) > 1e-2
        holes = ones.clone()
        holes[0, 5] = 0
        with pytest.raises(LongreachError, match="padding inside a text"):
            model(ids, attention_mask=holes, use_cache=False)
