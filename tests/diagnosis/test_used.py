"""What is used: read from the modules that transformers builds, and compared with the definitions."""

import json

import pytest
import torch

from longreach.diagnosis.base import Severity
from longreach.diagnosis.checks import frequencies as frequencies_check
from longreach.diagnosis.checks import record as record_check
from longreach.diagnosis.checks import survives
from longreach.diagnosis.diagnose import admit, diagnose
from longreach.diagnosis.expected import frequencies
from longreach.diagnosis.used import read_used
from longreach.testing.models import FAMILIES
from tests.checkpoints.folders import tiny
from tests.diagnosis.healthy import HEALTHY
from tests.diagnosis.threads import LLAMA


@pytest.fixture
def patient(tmp_path):
    """Examine a config."""

    def make(**config):
        (tmp_path / "config.json").write_text(json.dumps({**LLAMA, **config}))
        return admit(tmp_path, "model")

    return make


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_understood(family, tmp_path):
    tiny(family).config.save_pretrained(tmp_path)
    patient = admit(tmp_path, family)
    assert patient.used.kind == "rotary"
    assert patient.used.ropes
    assert all(rope.inv_freq is not None for rope in patient.used.ropes.values())
    assert all(finding.severity == Severity.NOTE for finding in diagnose(patient))


@pytest.mark.parametrize("name", HEALTHY)
def test_the_definitions_are_those_of_transformers(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(HEALTHY[name].config))
    used = read_used(tmp_path)
    for rope in used.ropes.values():
        if rope.inv_freq is not None:
            inv_freq, scaling = frequencies(rope.parameters, 2 * len(rope.inv_freq), used.window)
            assert rope.attention_scaling == pytest.approx(scaling, rel=1e-6)
            assert torch.allclose(rope.inv_freq, inv_freq, rtol=1e-6, atol=0)


def test_unknown_rope_types_have_no_definition_here():
    assert frequencies({"rope_type": "proportional", "rope_theta": 1e6}, 16, 4096) is None


def test_each_kind_of_positions(tmp_path):
    kinds = {}
    for name in ("GPT-2", "BLOOM", "Mamba", "Llama-3.1-8B"):
        (tmp_path / "config.json").write_text(json.dumps(HEALTHY[name].config))
        kinds[name] = read_used(tmp_path).kind
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gptj", "n_embd": 64, "n_head": 4, "n_layer": 2, "rotary_dim": 8}))
    kinds["GPT-J"] = read_used(tmp_path).kind
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2}))
    kinds["MPT"] = read_used(tmp_path).kind
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 64, "num_layers": 2, "num_heads": 4}))
    kinds["T5"] = read_used(tmp_path).kind
    assert kinds == {
        "GPT-2": "learned",
        "BLOOM": "linear biases",
        "Mamba": "none",
        "Llama-3.1-8B": "rotary",
        "GPT-J": "a table",
        "MPT": "linear biases",
        "T5": "relative biases",
    }


def test_other_frequencies_than_the_config_means_are_found(patient):
    """Values may all be kept and the module be wrong all the same."""
    one = patient(max_position_embeddings=4096, rope_theta=10000.0)
    assert list(frequencies_check.check(one)) == []
    one.used.ropes[None].inv_freq = one.used.ropes[None].inv_freq / 4
    (finding,) = frequencies_check.check(one)
    assert finding.severity == Severity.ERROR
    assert "differ by up to 0.75" in finding.what


def test_another_factor_on_cos_and_sin_is_found(patient):
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    one = patient(max_position_embeddings=4096, rope_theta=10000.0, rope_scaling=yarn)
    one.used.ropes[None].attention_scaling = 1.0
    (finding,) = frequencies_check.check(one)
    assert "scaled by 1, and config.json means 1.139" in finding.what


def test_truncate_is_ignored_for_layer_types_of_their_own(tmp_path):
    """transformers reads it from the outer dict."""
    full = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 8.0, "original_max_position_embeddings": 1024, "truncate": False}
    nested = {"full_attention": full, "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}
    tiny("gemma3", rope_parameters=nested, max_position_embeddings=8192, head_dim=64).config.save_pretrained(tmp_path)
    assert "frequencies" in {finding.check for finding in diagnose(admit(tmp_path, "gemma"))}


def test_what_a_save_changes_is_found(patient, monkeypatch):
    one = patient(max_position_embeddings=4096, rope_theta=1e6)
    assert list(survives.check(one)) == []
    monkeypatch.setattr(type(one.used.config), "save_pretrained", lambda config, folder: _without_base(config, folder))
    (finding,) = survives.check(one)
    assert "changes rope_theta=1000000.0 becomes 10000.0" in finding.what
    assert finding.severity == Severity.ERROR


def _without_base(config, folder):
    data = config.to_dict()
    del data["rope_parameters"]
    with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
        json.dump(data, file, default=str)


def test_the_record_check_needs_a_record(patient):
    assert list(record_check.check(patient(max_position_embeddings=4096))) == []
