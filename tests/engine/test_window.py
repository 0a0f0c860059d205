import pytest
from transformers import BloomConfig, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel, LlamaConfig, MambaConfig, OPTConfig, OPTForCausalLM

from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import InputError
from longreach.engine.window import position_limit, trained_window, window_before_export, window_of
from longreach.testing.models import tiny_model
from tests.checkpoints.folders import byte_tokenizer, tiny


def llama(**rope):
    return LlamaConfig(max_position_embeddings=4096, rope_parameters={"rope_theta": 10_000.0, **rope})


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (LlamaConfig(max_position_embeddings=4096), 4096),
        (llama(rope_type="linear", factor=2.0), 4096),
        (llama(rope_type="yarn", factor=8.0, original_max_position_embeddings=512), 4096),
        (llama(rope_type="yarn", factor=32.0, original_max_position_embeddings=4096), 131_072),  # Qwen: the maximum is not the scaled one
        (llama(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256), 4096),
        (llama(rope_type="longrope", short_factor=[1.0] * 64, long_factor=[2.0] * 64, original_max_position_embeddings=512), 4096),
        (llama(rope_type="dynamic", factor=4.0), 4096),
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
    assert trained_window(Gemma3TextConfig(max_position_embeddings=8192, rope_parameters=parameters)) == 4096


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


@pytest.mark.parametrize(("method", "before"), [("yarn:factor=4", 128), ("linear:factor=4", 128), ("when_long", 128), (None, 512)])
def test_an_export_is_measured_from_the_window_that_it_had(tmp_path, method, before):
    """Its weights know no more; a checkpoint that was saved without a method says how far it was trained."""
    save(tiny(), byte_tokenizer(), tmp_path / "out", method=method, target=512)
    model, _ = load(tmp_path / "out", apply_method=False)
    assert window_before_export(model) == before
    assert window_of(model) == (128 if method == "when_long" else 512)
