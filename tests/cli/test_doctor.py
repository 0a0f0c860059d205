import json
import shutil

import pytest

from longreach.checkpoints.checkpoint import _HUB_TEXT, load, save
from longreach.cli.main import run
from longreach.diagnosis.diagnose import check_names
from longreach.evaluation.rows import Row, Rows
from tests.checkpoints.folders import edit, write_folder

LOST = {"rope_theta": 500000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A healthy checkpoint: trained window 128."""
    return write_folder(tmp_path_factory.mktemp("doctor") / "tiny")


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A folder to work in, with the checkpoint `tiny`."""
    shutil.copytree(made, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys, *arguments, code=0):
    """The JSON of a run."""
    assert run(["doctor", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("folder")
def test_a_healthy_checkpoint(capsys):
    assert run(["doctor", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "tiny: llama, positions: rotary, window 128 tokens" in out
    assert "config.json says" in out
    assert "Cache: 0.4 MB for each 1024 tokens of a text (measured)." in out
    assert "Fits into memory: " in out
    assert out.rstrip().endswith("No findings.")


@pytest.mark.usefixtures("folder")
def test_json_for_programs(capsys):
    data = said(capsys, "tiny", "--batch-size", "2", "--dtype", "bfloat16")
    assert (data["model"], data["positions"], data["window"]) == ("tiny", "rotary", 128)
    assert (data["findings"], data["usable"], data["fix"]) == ([], None, None)
    assert data["stated"]["all"] == {"rope_theta": 10000.0, "rope_type": "default"}
    assert data["used"]["all"]["parameters"]["rope_theta"] == 10000
    assert data["used"]["all"]["inv_freq"] == pytest.approx([10_000 ** (-i / 4) for i in range(4)])
    memory = data["memory"]
    assert (memory["batch_size"], memory["dtype"], memory["measured"], memory["per_1k"]) == (2, "bfloat16", True, 3 * 2 * 2 * 8 * 2 * 1024)
    assert memory["fits"] > 1000
    assert data["readers"]["vllm"]["window"] == 128
    assert data["readers"]["llama.cpp"] == {"context_length": 128, "rope.freq_base": 10000.0}


def test_an_error_is_told_with_its_remedy(folder, capsys):
    edit(folder / "tiny" / "config.json", **LOST)
    assert run(["doctor", "tiny", "--no-load"]) == 1
    out, _ = capsys.readouterr()
    told = " ".join(out.split())
    assert "error the base is lost: config.json has rope_theta=500000 and rope_parameters.rope_theta=10000" in told
    assert "weighed on the model's shape, without its weights" in told
    assert told.endswith("1 error; --fix DIR corrects 1 of them.")
    (finding,) = said(capsys, "tiny", code=1)["findings"]
    assert (finding["severity"], finding["check"], finding["fixable"]) == ("error", "base_kept", True)


def test_nothing_is_cut_in_a_narrow_pipe(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    edit(folder / "tiny" / "config.json", **LOST)
    assert run(["doctor", "tiny", "--no-load"]) == 1
    assert "…" not in capsys.readouterr().out


def test_a_corrected_copy(folder, capsys):
    edit(folder / "tiny" / "config.json", **LOST)
    edit(folder / "tiny" / "tokenizer_config.json", model_max_length=64)
    before = (folder / "tiny" / "config.json").read_text()
    assert run(["doctor", "tiny", "--fix", "fixed"]) == 0
    out, _ = capsys.readouterr()
    assert "Written: fixed, with config.json and tokenizer_config.json corrected. Examined again: No findings." in out
    assert (folder / "tiny" / "config.json").read_text() == before
    assert said(capsys, "fixed")["findings"] == []
    assert load("fixed").model.config.rope_parameters["rope_theta"] == 500000
    assert run(["doctor", "tiny", "--fix", "fixed"]) == 0  # a copy of ours may be replaced


def test_what_cannot_be_corrected_is_said(folder, capsys):
    edit(folder / "tiny" / "config.json", rope_theta=500000.0, rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})
    assert run(["doctor", "tiny", "--fix", "fixed"]) == 1
    assert "Nothing can be corrected automatically; fixed was not written." in capsys.readouterr().out
    assert not (folder / "fixed").exists()
    edit(folder / "tiny" / "tokenizer_config.json", model_max_length=64)
    assert run(["doctor", "tiny", "--fix", "fixed"]) == 1
    out, _ = capsys.readouterr()
    assert "with tokenizer_config.json corrected. Examined again: 1 error." in out
    assert "  error: config.json states two bases" in out
    data = said(capsys, "tiny", "--fix", "fixed", code=1)
    assert (data["fix"]["folder"], data["fix"]["files"]) == ("fixed", ["tokenizer_config.json"])
    assert [finding["check"] for finding in data["fix"]["left"]] == ["base_kept"]


@pytest.mark.usefixtures("folder")
def test_a_healthy_checkpoint_is_not_copied(capsys):
    assert run(["doctor", "tiny", "--fix", "fixed"]) == 0
    assert "fixed was not written" in capsys.readouterr().out


def test_a_stretched_checkpoint(folder, capsys):
    save(*load("tiny"), folder / "long", method="yarn:factor=4", target=512)
    data = said(capsys, "long")
    assert data["window"] == 512
    assert data["findings"] == []
    assert data["readers"]["vllm"]["window"] == 512
    assert data["readers"]["llama.cpp"]["rope.scaling.original_context_length"] == 128


def measured(folder, *cells, prompts=40, model="tiny"):
    """Rows of a model, as many for each (method, length, score)."""
    row = {"task": "passkey", "model": model, "version": "1"}
    Rows(folder / "longreach-results/rows" / f"{model}.jsonl").append(
        Row(**row, method=method, length=length, score=score, settings={"metric": "likelihood", "input": str(number)})
        for method, length, score in cells
        for number in range(prompts)
    )


def test_measured_rows_are_told(folder, capsys):
    measured(folder, ("", 64, 1.0), ("", 128, 0.3), ("ntk:factor=2", 128, 1.0))
    data = said(capsys, "tiny")
    assert (data["usable"]["trained_window"], data["usable"]["by_retrieval"]) == (128, 64)
    (finding,) = data["findings"]
    assert (finding["severity"], finding["check"]) == ("warning", "usable")
    assert finding["what"] == "measured, it can be used up to 64 tokens, and its window is 128"
    assert "usable" not in check_names()
    assert run(["doctor", "tiny", "--rows", "longreach-results/rows/tiny.jsonl"]) == 0
    assert "Usable length: 64 tokens by retrieval" in capsys.readouterr().out
    (folder / "empty.jsonl").write_text("")
    assert said(capsys, "tiny", "--rows", "empty.jsonl")["usable"] is None


@pytest.mark.parametrize(
    ("score", "prompts", "severity", "what"),
    [
        (
            1.0,
            2,
            "note",
            "too little was measured to say whether it can be used up to its window of 512 (undecided at 256: passkey is 0.14",
        ),
        (
            0.0,
            2,
            "note",
            "too little was measured to say whether it can be used up to its window of 512 (undecided at 256: passkey is 0.00",
        ),
        (0.0, 40, "warning", "measured, it can be used up to 128 tokens, and its window is 512"),
    ],
)
def test_what_was_measured_too_little_is_not_held_against_the_model(folder, capsys, score, prompts, severity, what):
    save(*load("tiny"), folder / "long", method="yarn:factor=4", target=512)
    measured(folder, ("", 64, 1.0), ("", 128, 1.0), model="long")
    measured(folder, ("", 256, score), ("", 512, score), prompts=prompts, model="long")
    (finding,) = said(capsys, "long")["findings"]
    assert finding["severity"] == severity
    assert finding["what"].startswith(what)


def test_answers_inside_the_window_are_what_others_are_held_to(folder, capsys):
    measured(folder, ("", 64, 0.0), ("", 128, 0.0))
    data = said(capsys, "tiny")
    assert (data["findings"], data["usable"]["by_retrieval"]) == ([], None)
    assert run(["doctor", "tiny"]) == 0
    assert "retrieval says nothing, for inside its window the model finds only 0.00 of passkey" in capsys.readouterr().out


def test_only_texts_are_fetched_where_weights_are_not_wanted(folder, capsys, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, revision, allow_patterns: fetched.append(allow_patterns) or str(folder / "tiny")
    )
    data = said(capsys, "people/tiny", "--no-load", "--revision", "v2")
    assert (data["model"], data["memory"]["measured"]) == ("people/tiny@v2", False)
    assert fetched == [_HUB_TEXT]


def test_a_config_that_transformers_cannot_load(folder, capsys):
    edit(folder / "tiny" / "config.json", rope_parameters=None, rope_scaling={"type": "ntk", "factor": 4.0})
    data = said(capsys, "tiny", code=1)
    assert [finding["check"] for finding in data["findings"] if finding["severity"] == "error"] == ["loads"]
    assert run(["doctor", "tiny"]) == 1
    assert "KeyError: 'ntk'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere/at/all"], "error: no such folder: nowhere/at/all"),
        (["file.txt"], "error: file.txt is a file; give the folder of the checkpoint"),
        (["empty"], "error: empty has no config.json: it is not a checkpoint"),
        (["broken"], "error: broken/config.json is not valid JSON"),
        (["list"], "error: list/config.json is not a JSON object"),
        (["tiny", "--batch-size", "-1"], "error: Invalid value for '--batch-size'"),
        (["tiny", "--batch-size", "many"], "error: Invalid value for '--batch-size'"),
        (["tiny", "--dtype", "half"], "error: unknown dtype 'half'"),
        (["tiny", "--device", "gpu"], "error: unknown device 'gpu'"),
        (["tiny", "--rows", "none.jsonl"], "error: cannot read rows from none.jsonl: no such file"),
        (["tiny", "--fix", "empty/../list"], "exists and is not a longreach checkpoint; choose another folder"),
        (["tiny", "--fix", "tiny/fixed"], "error: --fix tiny/fixed lies in the checkpoint itself; choose another folder"),
        (["code"], "error: code brings its own code"),
        (["people/none"], "error: people/none is not a folder here and could not be fetched from the hub: no such model"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, arguments, says, capsys, monkeypatch):
    (folder / "file.txt").write_text("")
    monkeypatch.setattr("huggingface_hub.snapshot_download", _missing)
    for name, text in (
        ("empty", None),
        ("broken", "{"),
        ("list", "[]"),
        ("code", '{"model_type": "mine", "auto_map": {"AutoConfig": "a.B"}}'),
    ):
        (folder / name).mkdir()
        if text is not None:
            (folder / name / "config.json").write_text(text)
    assert run(["doctor", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def _missing(name, revision, allow_patterns):
    raise OSError("no such model")


def test_a_config_that_says_nothing(folder, capsys):
    (folder / "tiny" / "config.json").write_text("{}")
    assert [finding["check"] for finding in said(capsys, "tiny", code=1)["findings"]] == ["loads"]
