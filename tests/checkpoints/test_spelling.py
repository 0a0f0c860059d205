"""Exports say the same to every reader, whichever spelling of rotary embeddings it knows."""

import json

import pytest
import torch
from transformers import AutoConfig, BambaConfig, LlamaConfig, LlavaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.export import verify_export
from longreach.checkpoints.record import read_record
from longreach.checkpoints.spelling import spell_out, spelled_out
from longreach.core.errors import CheckpointError
from longreach.diagnosis.expected import frequencies
from longreach.testing.models import tiny_learned
from tests.checkpoints.folders import byte_tokenizer, edit, tiny

THETA = 50_000.0  # no family's default: a base that is lost is seen
EXPORTS = [
    ("llama", "yarn:factor=4"),
    ("llama", "linear:factor=4"),
    ("llama_mha", "ntk:factor=4"),
    ("qwen2", "llama3:factor=4"),
    ("gemma2", "yarn:factor=4,attention_factor=1"),
    ("phi3", "ntk:factor=4"),
    ("phi3", "giraffe_truncated"),
    ("stablelm", "yarn:factor=4"),
    ("glm4", "yarn:factor=4"),
    ("gpt_neox", "yarn:factor=4"),
    ("gpt_neox", "ntk:factor=4"),
]


def model_of(family):
    model = tiny(family, hidden_size=64)
    model.config.rope_parameters["rope_theta"] = THETA
    return model


def exported(folder, family="llama", method="yarn:factor=4"):
    """The folder of an export, and its config.json."""
    save(model_of(family), byte_tokenizer(), folder, method=method, target=512)
    assert read_record(folder).exported
    return folder, stated(folder)


def stated(folder):
    return json.loads((folder / "config.json").read_text())


def as_read(folder, config):
    """What transformers takes of a config."""
    (folder / "config.json").write_text(json.dumps(config))
    return {name: value for name, value in AutoConfig.from_pretrained(folder).rope_parameters.items() if name != "type"}


@pytest.mark.parametrize(("family", "method"), EXPORTS)
def test_each_spelling_by_itself_is_read_alike(tmp_path, family, method):
    folder, config = exported(tmp_path / "out", family, method)
    wanted = config["rope_parameters"]
    assert wanted["rope_theta"] != 10_000
    assert as_read(folder, config) == wanted
    assert as_read(folder, {name: value for name, value in config.items() if name != "rope_parameters"}) == wanted
    beside = ("rope_scaling", "rope_theta", "partial_rotary_factor", "rotary_emb_base", "rotary_pct")
    assert as_read(folder, {name: value for name, value in config.items() if name not in beside}) == wanted


@pytest.mark.parametrize(("family", "method"), [each for each in EXPORTS if each[0] != "gpt_neox"])
def test_the_old_spelling_means_the_same_frequencies(tmp_path, family, method):
    folder, config = exported(tmp_path / "out", family, method)
    scaling = config.get("rope_scaling") or {"type": "default"}
    assert scaling["type"] == scaling.get("rope_type", "default") == config["rope_parameters"]["rope_type"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    dim = int(head * config.get("partial_rotary_factor", 1))
    by_old, factor = frequencies({**scaling, "rope_theta": config["rope_theta"], "rope_type": scaling["type"]}, dim, 512)
    if scaling["type"] != "default":
        taken, scale = ROPE_INIT_FUNCTIONS[scaling["type"]](AutoConfig.from_pretrained(folder))
        torch.testing.assert_close(taken.double(), by_old, rtol=1e-6, atol=0)
        assert scale == pytest.approx(factor)
    else:
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] > THETA


def test_gpt_neox_is_spelled_by_its_own_names(tmp_path):
    _, config = exported(tmp_path / "out", "gpt_neox", "ntk:factor=4")
    assert config["rotary_emb_base"] == config["rope_theta"] == config["rope_parameters"]["rope_theta"] > THETA
    assert config["rotary_pct"] == config["rope_parameters"]["partial_rotary_factor"] == 0.25


def test_layer_types_have_one_spelling(tmp_path):
    save(tiny("gemma3"), byte_tokenizer(), tmp_path / "out", method="yarn:factor=4", target=512)
    assert {"rope_scaling", "rope_theta"}.isdisjoint(stated(tmp_path / "out"))


def test_the_language_model_of_a_larger_one_is_spelled_out(tmp_path):
    yarn = {"rope_type": "yarn", "rope_theta": THETA, "factor": 4.0, "original_max_position_embeddings": 512}
    config = LlavaConfig(text_config=LlamaConfig(rope_parameters=dict(yarn), longreach_method="yarn:factor=4"))
    config.save_pretrained(tmp_path)
    spell_out(tmp_path, config)
    assert {"rope_theta", "rope_scaling"}.isdisjoint(stated(tmp_path))
    assert stated(tmp_path)["text_config"]["rope_theta"] == THETA
    again = AutoConfig.from_pretrained(tmp_path).text_config.rope_parameters
    assert again == {**yarn, "type": "yarn"}


def test_a_family_that_would_lose_settings_has_one_spelling():
    """Bamba's rotates half of each head, whatever stands beside `rope_scaling`."""
    parameters = {"rope_type": "linear", "rope_theta": THETA, "factor": 4.0, "partial_rotary_factor": 0.25}
    assert spelled_out(parameters, BambaConfig().to_dict(), BambaConfig) == {"rope_parameters": parameters, "rope_scaling": None}


@pytest.mark.parametrize(("family", "method"), EXPORTS)
def test_saved_again_and_taken_back(tmp_path, family, method):
    before = save(model_of(family), byte_tokenizer(), tmp_path / "before")
    folder = save(*load(before), tmp_path / "out", method=method, target=512)
    again = save(*load(folder), tmp_path / "again")
    for file in ("config.json", "longreach.json", "tokenizer_config.json"):
        assert (again / file).read_bytes() == (folder / file).read_bytes(), file
    back = save(*load(again), tmp_path / "back", method="")
    assert (back / "config.json").read_bytes() == (before / "config.json").read_bytes()
    record = read_record(back)
    assert (record.method, record.original, record.target) == (None, None, 128)
    assert load(back).tokenizer.model_max_length == 128


def test_older_spellings_are_taken_back_as_they_were(tmp_path):
    """A config that transformers 4 wrote has entries of the same names."""
    before = save(model_of("phi3"), byte_tokenizer(), tmp_path / "before")
    edit(before / "config.json", rope_parameters=None, rope_theta=THETA, partial_rotary_factor=0.5)
    plain = stated(save(*load(before), tmp_path / "plain"))
    folder = save(*load(before), tmp_path / "out", method="ntk:factor=4", target=512)
    assert stated(folder)["rope_theta"] > THETA
    assert stated(save(*load(folder), tmp_path / "back", method="")) == plain
    assert plain["partial_rotary_factor"] == 0.5


def test_a_longer_table_stays_where_its_method_is_dropped(tmp_path):
    folder = save(tiny_learned(vocab_size=264), byte_tokenizer(), tmp_path / "out", method="stretch_positions:factor=2")
    back = save(*load(folder), tmp_path / "back", method="")
    assert stated(back)["n_positions"] == load(back).model.transformer.wpe.num_embeddings == read_record(folder).target > 128


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rope_theta", 10_000.0),
        ("rope_scaling", {"rope_type": "linear", "type": "linear", "factor": 4.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": THETA, "factor": 3.9, "original_max_position_embeddings": 128}),
    ],
)
def test_spellings_that_differ_are_found(tmp_path, name, change):
    folder, _ = exported(tmp_path / "out")
    edit(folder / "config.json", **{name: change})
    with pytest.raises(CheckpointError, match=r"config\.json contradicts itself: rope_(theta|scaling) is not what rope_parameters says"):
        verify_export(folder)
