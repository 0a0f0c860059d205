import importlib
import json

import pytest

from longreach.diagnosis import checks
from longreach.diagnosis.base import CONFIG, GENERATION, TOKENIZER
from longreach.diagnosis.diagnose import admit, check_names, corrections, diagnose
from tests.diagnosis.healthy import HEALTHY
from tests.diagnosis.threads import BROKEN

ALL = {**BROKEN, **HEALTHY}


def written(folder, thread):
    """The thread's files in a folder."""
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(thread.config))
    for name, data in ((TOKENIZER, thread.tokenizer), (GENERATION, thread.generation)):
        if data:
            (folder / name).write_text(json.dumps(data))
    return folder


def found(folder):
    return {(finding.severity.name.lower(), finding.check) for finding in diagnose(admit(folder, folder.name))}


def test_there_are_enough():
    assert len(BROKEN) >= 20
    assert len(HEALTHY) >= 15


@pytest.mark.parametrize("name", ALL)
def test_the_findings(name, tmp_path):
    assert found(written(tmp_path / "model", ALL[name])) == ALL[name].expected


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_configs_alarm_nobody(name):
    assert all(severity == "note" for severity, _ in HEALTHY[name].expected)


@pytest.mark.parametrize("name", BROKEN)
def test_corrections(name, tmp_path):
    thread = BROKEN[name]
    folder, scratch = written(tmp_path / "model", thread), tmp_path / "scratch"
    scratch.mkdir()
    patient = admit(folder, "model")
    changed = corrections(patient, scratch)
    assert bool(changed) == (thread.cured is not None) == any(finding.edits for finding in diagnose(patient))
    if thread.cured is not None:
        assert found(scratch) == thread.cured
        assert {name: (scratch / name).read_text() for name in changed} == changed


@pytest.mark.parametrize("name", sorted({check for thread in ALL.values() for _, check in thread.expected} | set(check_names())))
def test_every_check_is_held_to_a_thread(name):
    if name in ("applied", "combined", "frequencies", "record", "survives"):  # no config that was posted: they have tests of their own
        name = "loads"
    module = importlib.import_module(f"{checks.__name__}.{name}")
    assert module.__doc__
    assert any(check == name for thread in ALL.values() for _, check in thread.expected)


def cured(name, tmp_path):
    """config.json after the correction."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    corrections(admit(written(tmp_path / "model", BROKEN[name]), "model"), scratch)
    return json.loads((scratch / CONFIG).read_text())


def test_a_lost_base_comes_back_in_every_spelling(tmp_path):
    config = cured("onnxruntime-genai#2609", tmp_path)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 500000
    assert config["rope_scaling"]["rope_type"] == config["rope_scaling"]["type"] == config["rope_parameters"]["rope_type"] == "llama3"
    assert admit(tmp_path / "scratch", "model").used.ropes[None].parameters["rope_theta"] == 500000


def test_layer_types_are_told_apart_again(tmp_path):
    assert cured("transformers#41934", tmp_path)["rope_parameters"] == {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }


def test_attn_factor_becomes_what_transformers_reads(tmp_path):
    assert cured("DeepSeek-R1#684", tmp_path)["rope_parameters"]["attention_factor"] == pytest.approx(1.0)
    assert admit(tmp_path / "scratch", "model").used.ropes[None].attention_scaling == pytest.approx(1.0)


@pytest.mark.parametrize("value", [None, 0, -1, "x", [], {}, {"a": 1}, True, 1e30, float("nan")])
@pytest.mark.parametrize("name", ["SkyRL#690", "transformers#41934", "Phi-3-mini-128k (FastChat#3470)"])
def test_any_value_anywhere_gets_findings_and_no_traceback(name, value, tmp_path):
    config = ALL[name].config
    inner = next(key for key in ("rope_scaling", "rope_parameters") if key in config)
    for place in [key for key in config if "rope" in key or "max_" in key] + [f"{inner}.{key}" for key in config[inner]]:
        outer, _, last = place.partition(".")
        broken = {**config, outer: {**config[outer], last: value} if last else value}
        (tmp_path / CONFIG).write_text(json.dumps(broken))
        assert isinstance(diagnose(admit(tmp_path, "model")), list)
