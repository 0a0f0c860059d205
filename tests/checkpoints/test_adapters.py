import json

import pytest
import torch
from transformers import LlamaForCausalLM

from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import CheckpointError, InputError
from longreach.training.adapters import add_adapters
from tests.checkpoints.folders import logits, tiny


@pytest.fixture
def adapter(tmp_path):
    """The folder of an adapter of `tiny()`, and the logits of the model that has it."""
    torch.manual_seed(1)
    model = add_adapters(tiny(), rank=2, alpha=4, targets=["q_proj", "v_proj"]).eval()
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value)  # they begin at zero
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits(model)


def test_an_adapter_is_merged_and_saved_with_the_model(folder, adapter, tmp_path):
    place, wanted = adapter
    model, tokenizer = load(folder, adapter=place)
    assert not torch.allclose(logits(model), logits(tiny()), atol=1e-3)
    torch.testing.assert_close(logits(model), wanted, atol=1e-4, rtol=1e-3)
    save(model, tokenizer, tmp_path / "merged")
    torch.testing.assert_close(logits(load(tmp_path / "merged").model), logits(model))


def test_an_adapter_is_merged_into_a_gguf_file(whole, adapter):
    place, wanted = adapter
    torch.testing.assert_close(logits(load(whole, adapter=place).model), wanted, atol=1e-4, rtol=1e-3)


def test_an_adapter_of_another_model_is_refused(folder, adapter):
    place, _ = adapter
    other = tiny(num_hidden_layers=4)
    other.save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"the adapter .* cannot be loaded: Found missing adapter keys"):
        load(folder, adapter=place)


def test_a_quantized_checkpoint_takes_no_adapter(folder, adapter):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"base is quantized, and an adapter cannot be merged into its weights"):
        load(folder, adapter=adapter[0])


def test_an_adapter_is_looked_for_before_the_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "from_pretrained", None)
    with pytest.raises(CheckpointError, match=r"no such folder: no/such/adapter"):
        load(folder, adapter="no/such/adapter")


def test_what_is_no_adapter_is_named(folder, adapter):
    with pytest.raises(CheckpointError, match=r"base has no adapter_config.json: it is not an adapter"):
        load(folder, adapter=folder)
    place, _ = adapter
    (place / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no adapter_model.safetensors"):
        load(folder, adapter=place)
    with pytest.raises(CheckpointError, match=r"some/adapter is not a folder here and could not be fetched from the hub"):
        load(folder, adapter="some/adapter")
