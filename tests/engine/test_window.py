import pytest
from transformers import BloomConfig, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, MambaConfig, OPTConfig, OPTForCausalLM

from longreach.core.errors import InputError
from longreach.engine.window import position_limit, trained_window
from longreach.testing.models import tiny_model


def llama(**rope):
    return LlamaConfig(max_position_embeddings=4096, rope_parameters={"rope_theta": 10_000.0, **rope})


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (LlamaConfig(max_position_embeddings=4096), 4096),
        (llama(rope_type="linear", factor=2.0), 4096),
        (llama(rope_type="yarn", factor=8.0, original_max_position_embeddings=512), 512),
        (llama(rope_type="default", original_max_position_embeddings=512), 4096),
        (GPT2Config(n_positions=1024), 1024),
        (OPTConfig(max_position_embeddings=2048), 2048),
    ],
)
def test_the_trained_window(config, window):
    assert trained_window(config) == window


def test_a_window_for_each_layer_type():
    scaled = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 1024}
    parameters = {"full_attention": scaled, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    assert trained_window(Gemma3TextConfig(max_position_embeddings=4096, rope_parameters=parameters)) == 1024


@pytest.mark.parametrize("config", [MambaConfig(), BloomConfig()])
def test_no_window_is_said(config):
    with pytest.raises(InputError, match="states no window"):
        trained_window(config)


def test_tables_of_positions_have_an_end():
    assert position_limit(GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=64, n_embd=8, n_layer=1, n_head=1))) == 64
    small = {"vocab_size": 50, "hidden_size": 8, "ffn_dim": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "word_embed_proj_dim": 8}
    assert position_limit(OPTForCausalLM(OPTConfig(max_position_embeddings=64, **small))) == 64


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt_neox", "falcon"])
def test_rotary_models_have_no_such_end(family):
    assert position_limit(tiny_model(family)) is None
