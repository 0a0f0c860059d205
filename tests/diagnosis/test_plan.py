import json
import re

import pytest
import torch
from transformers import AutoConfig

from longreach.checkpoints import _safety
from longreach.checkpoints.checkpoint import load, save
from longreach.checkpoints.record import read_record
from longreach.core.errors import CheckpointError, InputError
from longreach.diagnosis import fix
from longreach.diagnosis.base import CONFIG, Edit, Severity
from longreach.diagnosis.diagnose import admit, check_names, corrections, diagnose
from longreach.diagnosis.fix import edited_files, write_copy
from longreach.diagnosis.plan import loaded_frequencies, make_plan
from tests.checkpoints.folders import byte_tokenizer, edit, tiny, write_folder
from tests.diagnosis.healthy import HEALTHY

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "base")


def planned(folder, **options):
    return make_plan(admit(folder, folder.name), device=CPU, **options)[:2]


def test_a_model_that_fits_is_measured(folder):
    found, findings = planned(folder)
    assert findings == []
    assert (found.measured, found.dtype, found.device, found.batch_size) == (True, "float32", "cpu", 1)
    assert found.weights == sum(value.numel() for value in tiny().parameters()) * 4
    assert found.per_1k == 3 * 2 * 2 * 8 * 4 * 1024


@pytest.mark.parametrize("options", [{"load_weights": False}, {"dtype": "bfloat16", "batch_size": 4}])
def test_dtype_and_weights_are_chosen(folder, options):
    found, _ = planned(folder, **options)
    assert found.measured == options.get("load_weights", True)
    assert found.per_1k == 3 * 2 * 2 * 8 * 1024 * (2 if "dtype" in options else 4)


def test_a_model_too_large_is_weighed_by_its_shape(folder, monkeypatch):
    monkeypatch.setattr(_safety, "available_bytes", lambda device: 1000)
    found, findings = planned(folder)
    assert (found.measured, found.fits, findings) == (False, 0, [])
    assert found.per_1k == planned(folder, load_weights=False)[0].per_1k


def test_an_unknown_dtype_is_refused(folder):
    with pytest.raises(InputError, match="unknown dtype 'half'"):
        planned(folder, dtype="half")


def test_weights_that_are_not_whole_are_an_error(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    found, (finding,) = planned(folder)
    assert (finding.severity, finding.check) == (Severity.ERROR, "weights")
    assert "is truncated" in finding.what
    assert found.weights is None
    assert found.per_1k > 0


def test_weights_that_are_not_here_are_a_note(folder):
    (folder / "model.safetensors").unlink()
    _, (finding,) = planned(folder)
    assert (finding.severity, finding.check) == (Severity.NOTE, "weights")


def test_a_language_model_in_a_larger_one_is_weighed(tmp_path):
    (tmp_path / CONFIG).write_text(json.dumps(HEALTHY["Gemma-3-4B (mlx-vlm#1709)"].config))
    found, _ = planned(tmp_path)
    assert [layer.limit for layer in found.layers] == [1023] * 5 + [None]


@pytest.mark.parametrize(("named", "causal"), [("GPT2LMHeadModel", True), ("GPT2Model", False), ("GPT2ForSequenceClassification", False)])
def test_the_saved_class_decides_what_the_model_is(tmp_path, named, causal):
    (tmp_path / CONFIG).write_text(json.dumps({**HEALTHY["GPT-2"].config, "architectures": [named]}))
    assert admit(tmp_path, "gpt2").used.causal == causal


def test_encoders_have_no_cache(tmp_path):
    config = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    (tmp_path / CONFIG).write_text(json.dumps(config))
    found, _ = planned(tmp_path)
    assert found.layers == ()


def test_a_scaling_that_is_dropped_on_loading_is_found(folder):
    """As in unsloth#6907: the config is right, and the buffers of the loaded model are not."""
    patient, model = admit(folder, "base"), load(folder).model
    assert loaded_frequencies(patient, model) == []
    model.model.rotary_emb.inv_freq *= 8
    (finding,) = loaded_frequencies(patient, model)
    assert (finding.severity, finding.check) == (Severity.ERROR, "loaded")
    assert "model.rotary_emb.inv_freq differs" in finding.what


# what `longreach stretch` saves


SLIDING = "2 of 3 layers see the last 8 tokens only"


@pytest.mark.parametrize(
    ("family", "method", "told"),
    [
        ("llama", "yarn:factor=4", []),
        ("llama_mha", "ntk:factor=4", []),
        ("llama", "llama3:factor=4", []),
        ("llama", "giraffe_truncated", []),
        # vLLM multiplies the window by the factor of linear scaling, however the config is spelled
        ("llama", "linear:factor=4", ["vLLM serves up to 2048 tokens where it is not told, and max_position_embeddings is 512"]),
        ("stablelm", "yarn:factor=4", []),
        ("gpt_neox", "ntk:factor=4", []),
        ("phi3", "ntk:factor=4", []),
        ("phi3", "giraffe_truncated", ["vLLM serves up to 128 tokens where it is not told, and max_position_embeddings is 512"]),
        ("gemma2", "yarn:factor=4", [SLIDING]),
        ("gemma3", "yarn:factor=4", [SLIDING]),  # layer types have one spelling
    ],
)
def test_exported_checkpoints_are_healthy(tmp_path, family, method, told):
    out = save(tiny(family, hidden_size=64), byte_tokenizer(), tmp_path / "out", method=method, target=512)
    assert read_record(out).exported
    findings = diagnose(admit(out, "out"))
    assert [finding.what for finding in findings] == told
    assert all(finding.severity == Severity.NOTE for finding in findings)


@pytest.mark.parametrize(("family", "method"), [("llama", "yarn:factor=4"), ("stablelm", "yarn:factor=4"), ("gpt_neox", "yarn:factor=4")])
def test_an_export_that_transformers_saved_again_is_spelled_as_before(tmp_path, family, method):
    model = tiny(family, hidden_size=64)
    model.config.rope_parameters["rope_theta"] = 50_000.0
    out = save(model, byte_tokenizer(), tmp_path / "out", method=method, target=512)
    wanted = json.loads((out / CONFIG).read_text())
    AutoConfig.from_pretrained(out).save_pretrained(out)
    (finding,) = diagnose(admit(out, "out"))
    assert finding.what.startswith("programs older than transformers 5 do not know rope_parameters: they take base ")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert json.loads(corrections(admit(out, "out"), scratch)[CONFIG]) == wanted
    assert diagnose(admit(scratch, "out")) == []


def test_a_method_that_only_longreach_applies_is_told(folder, tmp_path):
    out = save(*load(folder), tmp_path / "out", method="self_extend:neighbours=32,group=8", target=512)
    (finding,) = diagnose(admit(out, "out"))
    assert (finding.check, finding.severity) == ("applied", Severity.WARNING)
    assert "self_extend:neighbours=32,group=8, which only longreach applies" in finding.what


def test_an_export_that_another_program_lost_is_written_again(folder, tmp_path):
    out = save(*load(folder), tmp_path / "out", method="yarn:factor=4", target=512)
    before = admit(out, "out").used.ropes[None]
    edit(
        out / CONFIG,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        rope_scaling=None,
        max_position_embeddings=128,
        longreach_method=None,
    )
    (finding,) = (finding for finding in diagnose(admit(out, "out")) if finding.check == "record")
    assert finding.severity == Severity.ERROR
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    write_copy(out, tmp_path / "fixed", corrections(admit(out, "out"), scratch))
    after = admit(tmp_path / "fixed", "fixed")
    assert torch.equal(after.used.ropes[None].inv_freq, before.inv_freq)
    assert "record" not in {finding.check for finding in diagnose(after)}


@pytest.mark.parametrize(
    ("family", "method", "what"),
    [
        ("llama_yarn", "yarn:factor=2", "yarn:factor=2 stands on top of yarn, factor 4, .*both as one \\(yarn, factor 8\\)"),
        ("llama_llama3", "linear:factor=2", "linear:factor=2 stands on top of llama3, factor 8, .*both as one \\(longrope\\)"),
        ("llama_longrope", "linear:factor=2+when_long", "longreach.json applies linear:factor=2\\+when_long on top of longrope, factor 4,"),
    ],
)
def test_what_was_combined_is_told(tmp_path, family, method, what):
    write_folder(tmp_path / "base", family, hidden_size=64)
    out = save(*load(tmp_path / "base"), tmp_path / "out", method=method, target=256)
    findings = diagnose(admit(out, "out"))
    (found,) = (finding for finding in findings if finding.check == "combined")
    assert found.severity == Severity.NOTE
    assert re.match(what, found.what)
    assert {finding.check for finding in findings if finding.severity > Severity.NOTE} <= {"applied"}
    assert not any(finding.check == "combined" for finding in diagnose(admit(tmp_path / "base", "base")))


def test_a_method_on_top_of_a_scaled_config_is_found(folder, tmp_path):
    out = save(*load(folder), tmp_path / "out", method="dynamic_ntk+log_n", target=512)
    assert {finding.check for finding in diagnose(admit(out, "out"))} == {"applied"}
    edit(out / CONFIG, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    (finding,) = (finding for finding in diagnose(admit(out, "out")) if finding.check == "combined")
    assert "longreach.json applies dynamic_ntk+log_n on top of linear, factor 4" in finding.what


# corrected copies


def test_edits_reach_into_dicts_and_leave_the_rest():
    files = {"a.json": {"keep": 1, "text_config": {"old": 2}}}
    edits = (
        Edit(file="a.json", path=("text_config", "old"), value=None),
        Edit(file="a.json", path=("text_config", "new"), value={"x": 3}),
        Edit(file="b.json", path=("c",), value=4),
    )
    assert {name: json.loads(text) for name, text in edited_files(files, edits).items()} == {
        "a.json": {"keep": 1, "text_config": {"new": {"x": 3}}},
        "b.json": {"c": 4},
    }
    assert files == {"a.json": {"keep": 1, "text_config": {"old": 2}}}


def test_copies_are_byte_for_byte(folder, tmp_path):
    write_copy(folder, tmp_path / "fixed", {CONFIG: "{}"})
    for file in folder.iterdir():
        same = (tmp_path / "fixed" / file.name).read_bytes() == file.read_bytes()
        assert same == (file.name != CONFIG)
    assert (tmp_path / "fixed" / CONFIG).read_text() == "{}"
    assert (tmp_path / "fixed" / "longreach.json").is_file()
    assert (folder / CONFIG).read_text() != "{}"


def test_links_are_not_written_through(folder, tmp_path):
    (folder / CONFIG).rename(tmp_path / "blob")
    (folder / CONFIG).symlink_to(tmp_path / "blob")
    before = (tmp_path / "blob").read_text()
    write_copy(folder, tmp_path / "fixed", {CONFIG: "{}"})
    assert (tmp_path / "blob").read_text() == before


def test_a_copy_that_fails_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fix.shutil, "copytree", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left on device; nothing was changed there"):
        write_copy(folder, tmp_path / "fixed", {CONFIG: "{}"})
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_check_is_a_file():
    assert {"loads", "base_kept", "scaling_kept", "readers"} < set(check_names())
