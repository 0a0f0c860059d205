"""Exports of methods on checkpoints that are scaled already: plain transformers reads them as they are applied here, in both spellings."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.export import verify_export
from longreach.checkpoints.record import read_record
from longreach.checkpoints.servers import server_settings
from longreach.engine.apply import apply
from longreach.engine.rope_config import rope_of
from longreach.testing.models import SCALED, random_ids, tiny_model
from tests.checkpoints.folders import byte_tokenizer, tiny, write_folder

pytestmark = pytest.mark.usefixtures("warm_reader")
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 32}
TARGET = 512


def saved(tmp_path, family, method, **changes):
    """(the model under the method, the folder of its export)."""
    base = write_folder(tmp_path / "base", family, hidden_size=64, **changes)
    model, tokenizer = load(base)
    folder = save(model, tokenizer, tmp_path / "out", method=method, target=TARGET)
    assert read_record(folder).exported
    return model, folder


@pytest.mark.parametrize("method", ["yarn:factor=4", "llama3:factor=4+resonance", "ntk:factor=4"])
@pytest.mark.parametrize("family", [*SCALED, "phi3_longrope"])
def test_both_spellings_give_what_is_applied(tmp_path, family, method):
    changes = {}
    if family == "phi3_longrope":  # Phi-3 states its original window beside the dicts
        long = {"short_factor": [1.0] * 4, "long_factor": [1.0, 1.5, 2.0, 3.0], "original_max_position_embeddings": 32}
        parameters = {"rope_type": "longrope", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5, **long}
        family, changes = "phi3", {"original_max_position_embeddings": 32, "rope_parameters": parameters}
    model, folder = saved(tmp_path, family, method, **changes)
    assert verify_export(folder) < 1e-3
    ids = random_ids(1, 200)
    with apply(model, method), torch.no_grad():
        wanted, inv_freq = model(ids).logits, model.model.rotary_emb.inv_freq.clone()
    whole = json.loads((folder / "config.json").read_text())
    for left_out in (("rope_parameters",), ("rope_scaling", "rope_theta", "partial_rotary_factor")):
        (folder / "config.json").write_text(json.dumps({name: value for name, value in whole.items() if name not in left_out}))
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            torch.testing.assert_close(plain(ids).logits, wanted, rtol=0, atol=1e-3)
        torch.testing.assert_close(plain.model.rotary_emb.inv_freq, inv_freq, rtol=4 * 2**-24, atol=0)


@pytest.mark.parametrize(
    ("family", "method", "factor"),
    [("llama_yarn", "yarn:factor=4", 16), ("llama_llama3", "llama3:factor=4", 32), ("llama_linear", "linear:factor=4", 16)],
)
def test_a_scaling_of_the_same_kind_is_what_people_would_write(tmp_path, family, method, factor):
    model, folder = saved(tmp_path, family, method)
    stated = AutoConfig.from_pretrained(folder).rope_parameters
    usual = {"beta_fast": 32.0, "beta_slow": 1.0} if family == "llama_yarn" else {}
    assert {name: value for name, value in stated.items() if name != "type"} == {
        **{name: value for name, value in model.config.rope_parameters.items() if name != "type"}, **usual, "factor": factor,
    }  # fmt: skip
    assert verify_export(folder) == 0


@pytest.mark.parametrize("family", SCALED)
def test_the_scaling_before_is_taken_back_as_it_was(tmp_path, family):
    _, folder = saved(tmp_path, family, "giraffe_truncated")
    assert read_record(folder).trained_window == 128
    plain = save(*load(tmp_path / "base"), tmp_path / "plain")
    back = save(*load(folder), tmp_path / "back", method="")
    assert json.loads((back / "config.json").read_text()) == json.loads((plain / "config.json").read_text())


def test_what_cannot_be_exported_comes_back_on_top(tmp_path):
    model, tokenizer = load(write_folder(tmp_path / "base", "llama_longrope", hidden_size=64))
    ids = random_ids(1, 300)
    folder = save(model, tokenizer, tmp_path / "out", method="yarn:factor=4+when_long", target=TARGET)
    assert not read_record(folder).exported
    with torch.no_grad():
        with apply(model, "yarn:factor=4+when_long"):
            wanted = model(ids).logits
        assert torch.equal(load(folder).model(ids).logits, wanted)
        for length in (20, 100, 128):
            assert torch.equal(load(folder).model(ids[:, :length]).logits, model(ids[:, :length]).logits)


def test_a_setting_that_belongs_to_the_model_stays():
    """Ministral scales queries by their position over the original window, which it reads from the same place."""
    parameters = {**YARN, "llama_4_scaling_beta": 0.1}
    model = tiny_model("ministral3", rope_parameters=parameters)
    for method in ("yarn:factor=2", "linear:factor=2", "ntk:factor=2"):
        with apply(model, method):
            now = model.config.rope_parameters
            assert (now["llama_4_scaling_beta"], now["original_max_position_embeddings"]) == (0.1, 32)
            assert model(random_ids(1, 200)).logits.isfinite().all()


def overrides(spec, config):
    text = server_settings(spec, rope_of(config), TARGET, config=config)["vllm"]
    return json.loads(text.split("'")[1])["rope_parameters"] if "'" in text else text


def llama_cpp(spec, config):
    return server_settings(spec, rope_of(config), TARGET, config=config)["llama.cpp"]


def test_servers_are_told_of_one_scaling_or_that_they_cannot():
    config = tiny("llama_yarn").config
    assert overrides("yarn:factor=4", config) == {**YARN, "factor": 16.0, "beta_fast": 32.0, "beta_slow": 1.0}
    assert llama_cpp("yarn:factor=4", config) == (
        "llama-server -m MODEL.gguf --ctx-size 512 --rope-scaling yarn --rope-scale 16 --yarn-orig-ctx 32"
    )
    assert overrides("linear:factor=4", config)["short_mscale"] == pytest.approx(1.1386294)
    assert llama_cpp("linear:factor=4", config).startswith("llama.cpp takes longrope's factors from the GGUF file alone")
    assert overrides("llama3:factor=4", tiny("llama_llama3").config)["factor"] == 32
    assert llama_cpp("linear:factor=4", tiny("llama_linear").config).endswith("--rope-scaling linear --rope-scale 16")


@pytest.mark.parametrize(
    ("changes", "vllm", "llama"),
    [
        ({"truncate": False}, None, "llama.cpp rounds the ends of yarn's ramp to whole dimensions"),
        ({"attention_factor": 1.0}, 1.0 / 1.1386294, "llama.cpp computes yarn's attention factor itself; attention_factor=1."),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, "vLLM reads mscale in some families", "llama.cpp computes yarn's attention factor itself"),
    ],
)
def test_servers_are_not_told_half_of_a_yarn(changes, vllm, llama):
    config = tiny("llama_yarn", rope_parameters={**YARN, **changes}).config
    found = overrides("yarn:factor=4", config)
    assert found.startswith(vllm) if isinstance(vllm, str) else found.get("attn_factor") == (vllm and pytest.approx(vllm))
    assert llama_cpp("yarn:factor=4", config).startswith(llama)


def test_a_combination_is_saved_and_loaded_as_it_is(tmp_path):
    _, folder = saved(tmp_path, "llama_yarn", "yarn:factor=4")
    model, tokenizer = load(folder)
    assert (rope_of(model.config).trained_window, tokenizer.model_max_length) == (TARGET, TARGET)
    assert save(model, byte_tokenizer(), tmp_path / "again").joinpath("config.json").read_bytes() == (folder / "config.json").read_bytes()
