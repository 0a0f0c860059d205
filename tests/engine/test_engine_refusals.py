"""What the engine cannot run is refused by a clear message, and leaves the model as it was."""

import pytest
import torch
import transformers
from transformers import DynamicCache, QuantizedCache

from longreach.core.errors import LongreachError, UnsupportedError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.models import VOCABULARY, random_ids, randomize, tiny_model

POLICY = "self_extend:neighbours=8,group=2"
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
NOT_DEFERRED = "its rotary embedding is of no known form"  # what it does after the rotation does not commute with it
NO_ATTENTION = "its attention does not go through transformers' attention interface"
OWN_CODE = "it cannot be run with another attention function"
# Its rotary embedding became a module, of a form of its own, in transformers 5.24.
GPTJ = OWN_CODE if transformers.__version__ < "5.24" else "it has no rotary embedding"
# config and model class -> (settings, why)
MODELS = {
    ("HunYuanDenseV1Config", "HunYuanDenseV1ForCausalLM"): ({"head_dim": 16}, NOT_DEFERRED),
    ("NanoChatConfig", "NanoChatForCausalLM"): ({}, NOT_DEFERRED),
    ("GPT2Config", "GPT2LMHeadModel"): ({"n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 64}, "it has no rotary embedding"),
    ("OPTConfig", "OPTForCausalLM"): ({"ffn_dim": 64, "word_embed_proj_dim": 64}, "it has no rotary embedding"),
    ("BloomConfig", "BloomForCausalLM"): ({"n_layer": 2, "n_head": 4}, OWN_CODE),
    ("FalconConfig", "FalconForCausalLM"): ({"alibi": True, "new_decoder_architecture": False}, OWN_CODE),
    ("GPTJConfig", "GPTJForCausalLM"): (
        {"n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8, "n_positions": 64},
        GPTJ,
    ),
    # Positions as complex numbers.
    ("Llama4TextConfig", "Llama4ForCausalLM"): ({"head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 96}, OWN_CODE),
    # Bamba counts positions anew in every piece, where none are given.
    ("BambaConfig", "BambaForCausalLM"): (
        {"attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1},
        "it does not read in pieces what it reads at once, also without a method",
    ),
    ("Zamba2Config", "Zamba2ForCausalLM"): (
        {
            "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
            "hybrid_layer_ids": [1, 3],
            "num_hidden_layers": 4,
            "mamba_d_state": 8,
            "n_mamba_heads": 4,
            "mamba_headdim": 32,
            "mamba_ngroups": 1,
            "use_mem_rope": True,
            "num_mem_blocks": 1,
            "adapter_rank": 8,
            "attention_head_dim": 32,
            "num_key_value_heads": 4,
        },
        "several of its layers share the weights and the number of one attention",
    ),
    ("MambaConfig", "MambaForCausalLM"): ({}, NO_ATTENTION),
    ("BertConfig", "BertLMHeadModel"): ({}, "it is not a causal decoder"),
}


def build(config, model, settings):
    return randomize(getattr(transformers, model)(getattr(transformers, config)(**{**SIZES, **settings})).eval())


@pytest.mark.parametrize(
    ("classes", "settings", "why"),
    [(key, *value) for key, value in MODELS.items()],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_models_that_it_cannot_run(classes, settings, why):
    model = build(*classes, settings)
    before = snapshot(model)
    with pytest.raises(UnsupportedError, match=why) as caught, apply(model, POLICY):
        pass
    assert str(caught.value).startswith(f"{POLICY} cannot be used with {classes[1]}: {why}")
    unchanged(before, snapshot(model), "after the refusal")


def test_frequencies_of_a_model_that_uses_linear_biases_instead():
    # Its config and its modules do hold a rotary embedding.
    model = build("FalconConfig", "FalconForCausalLM", {"alibi": True, "new_decoder_architecture": False})
    with pytest.raises(UnsupportedError, match="no rotary position embedding"), apply(model, "linear:factor=2"):
        pass


def test_a_config_that_does_not_describe_its_model():
    model = tiny_model()
    model.config.head_dim = 8
    with (
        pytest.raises(UnsupportedError, match="no rotary embedding of the kind that its config describes"),
        apply(model, "linear:factor=2"),
    ):
        pass


@pytest.mark.parametrize("spec", [POLICY, "sinks:window_size=8", "log_n", "full"])
def test_a_model_of_sliding_layers_only(spec):
    model = tiny_model("mistral")
    with pytest.raises(UnsupportedError, match="all its layers have a sliding window of their own"), apply(model, spec):
        pass


@pytest.mark.parametrize("family", ["cohere2", "exaone4"])
@pytest.mark.parametrize("spec", [POLICY, "rerope:window_size=8", "dynamic_ntk", "linear:factor=2"])
def test_positions_where_the_full_layers_use_none(spec, family):
    model = tiny_model(family)
    with pytest.raises(UnsupportedError, match="its full-attention layers use no positions"), apply(model, spec):
        pass
    with apply(model, "sinks:window_size=8+log_n"):  # what works by visibility and sharpness does work
        pass


def test_a_method_inside_a_method():
    model = tiny_model()
    with apply(model, "linear:factor=2"), pytest.raises(UnsupportedError, match="linear:factor=2 is applied to it"), apply(model, POLICY):
        pass


def test_nothing_to_apply():
    model = tiny_model()
    before = snapshot(model)
    for nothing in (None, "", ()):
        with apply(model, nothing) as same:
            assert same is model
            unchanged(before, snapshot(model), "inside")


@pytest.fixture
def applied():
    model = tiny_model()
    with apply(model, POLICY):
        yield model


def refuse(run, why):
    with pytest.raises(LongreachError, match=why), torch.no_grad():
        run()


def test_masks_beyond_padding(applied):
    mask = torch.ones(1, 1, 12, 12, dtype=torch.bool).tril()
    refuse(lambda: applied(random_ids(1, 12), attention_mask=mask), "masks beyond padding")


def test_packed_sequences(applied):
    positions = torch.cat([torch.arange(7), torch.arange(5)])[None]
    refuse(lambda: applied(random_ids(1, 12), position_ids=positions, use_cache=False), "packed sequences")


def test_masks_that_do_not_fit_what_was_seen(applied):
    past = DynamicCache(config=applied.config)
    with torch.no_grad():
        applied(random_ids(1, 12), **cache_argument(applied, past))
    mask = torch.ones(1, 3, dtype=torch.long)
    mask[0, 0] = 0
    refuse(lambda: applied(random_ids(1, 3), attention_mask=mask, **cache_argument(applied, past)), "attention_mask covers")


def test_attention_weights(applied):
    refuse(lambda: applied(random_ids(1, 12), output_attentions=True), "attention weights do not exist")


def test_attention_dropout():
    model = tiny_model(attention_dropout=0.1).train()
    with apply(model, POLICY):
        refuse(lambda: model(random_ids(1, 12)), "attention dropout is not supported")
        model.eval()
        model(random_ids(1, 12))


def test_caches_with_storage_of_their_own(applied):
    class Own(DynamicCache):
        """As quantized and offloaded caches are."""

    assert not issubclass(QuantizedCache, DynamicCache)
    refuse(lambda: applied(random_ids(1, 12), **cache_argument(applied, Own())), "a Own cannot be used")


def test_a_cache_whose_forward_pass_was_interrupted(applied):
    past = DynamicCache(config=applied.config)
    hook = applied.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        applied(random_ids(1, 12), **cache_argument(applied, past))
    hook.remove()
    refuse(lambda: applied(random_ids(1, 12), **cache_argument(applied, past)), "start with a new cache")


def test_a_cache_that_does_not_reach_the_engine(applied):
    past, ids = DynamicCache(config=applied.config), random_ids(1, 13)
    with torch.no_grad():
        applied.model.forward(ids[:, :12], **cache_argument(applied, past))  # past the hooks of the module
    refuse(lambda: applied.model.forward(ids[:, 12:], **cache_argument(applied, past)), "did not reach the engine")


def test_a_scaling_that_is_also_in_the_scale_of_logits_is_refused():
    rope = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0}
    latent = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16}
    for all_dim in (1.0, None):
        settings = {**SIZES, **latent, "num_key_value_heads": 4, "rope_parameters": {**rope, "mscale_all_dim": all_dim}}
        model = transformers.DeepseekV3ForCausalLM(transformers.DeepseekV3Config(**settings, first_k_dense_replace=2)).eval()
        if all_dim is None:
            with apply(model, "yarn:factor=2"):
                assert model.config.rope_parameters["factor"] == 8
            continue
        before = snapshot(model)
        with pytest.raises(UnsupportedError, match="also in the scale of its logits"), apply(model, "yarn:factor=2"):
            pass
        unchanged(before, snapshot(model), "after the refusal")


def test_frequencies_that_a_model_does_not_take_are_refused():
    """PhiMoE computes its own in every forward pass."""
    model = build("PhimoeConfig", "PhimoeForCausalLM", {"num_local_experts": 2, "num_experts_per_tok": 1})
    before = snapshot(model)
    with pytest.raises(UnsupportedError, match="computes frequencies of its own in every forward pass"), apply(model, "linear:factor=2"):
        pass
    unchanged(before, snapshot(model), "after the refusal")
