"""The scripts that write evidence, run as users run them on a random model."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from longreach.core import registry
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ROOT = Path(__file__).resolve().parents[2]
TO = "256"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint with a trained window of 128 tokens, a text, and room for results."""
    place = tmp_path_factory.mktemp("evidence")
    tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1).save_pretrained(place / "tiny")
    tokenizer().save_pretrained(place / "tiny")
    (place / "tiny" / "README.md").write_text("# tiny\n\n- Data: random\n  numbers.\n- Training: none.\n", encoding="utf-8")
    (place / "book.txt").write_text(real_text(), encoding="utf-8")
    return place


@pytest.fixture
def call(folder, monkeypatch, capsys):
    """Run a script's main function; returns what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.chdir(folder)

    def run(script, *options):
        common = ["--model", str(folder / "tiny"), "--name", "made", "--to", TO, "--windows", "2", "--text", "book.txt"]
        monkeypatch.setattr(sys, "argv", [script, *common, "--out", "out", *options])
        importlib.import_module(script).main()
        return capsys.readouterr().out

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_all_methods_are_compared_by_length(call, folder):
    printed = call("lengths", "--samples", "1", "--also", "self_extend+log_n", "--also", "yarn:factor=auto+when_long")
    rows = lines(folder / "out" / "lengths" / "made.jsonl")
    found = {(row["method"], row["length"]): row for row in rows}
    suggesting = {method.name() for method in registry.methods() if method.info.training_free and method.suggest(128, 256)}
    shown = {row["method"] for row in rows}
    assert {"stock model", "self_extend+log_n", "yarn:factor=auto+when_long"} <= shown
    assert {name for name in suggesting if name not in shown and f"{name}: it has no table of learned positions" not in printed} == set()
    assert {row["length"] for row in rows} == {128, 256}
    assert found["yarn", 128]["setting"] == found["yarn", 256]["setting"] == "yarn:factor=2"
    assert (found["stock model", 128]["rise"], found["stock model", 128]["setting"]) == (0, "")
    assert abs(found["yarn:factor=auto+when_long", 128]["rise"]) < 1e-6, "rounding: a question reads past the window and is taken back"
    assert abs(found["yarn", 128]["rise"]) > 1e-4
    assert found["sinks", 256]["forgets"] is True
    assert all(row["rise_low"] <= row["rise"] <= row["rise_high"] and row["texts"] == 2 for row in rows)
    assert {row["command"] for row in rows} == {
        "python benchmarks/lengths.py --model FOLDER --name made --to 256 --text book.txt --windows 2 "
        "--also self_extend+log_n --also yarn:factor=auto+when_long --samples 1"
    }
    (model,) = lines(folder / "out" / "models" / "made.json")
    assert (model["head_dim"], model["heads"], model["kv_heads"], model["window"]) == (16, 4, 2, 128)
    assert model["trained_on"] == "random numbers."


def test_a_tuned_model_can_be_shown_alone(call, folder):
    call("lengths", "--samples", "1", "--only", "stock", "--name", "tuned", "--trained-on", "made, then books")
    rows = lines(folder / "out" / "lengths" / "tuned.jsonl")
    assert [(row["method"], row["setting"], row["length"]) for row in rows] == [("stock model", "", 128), ("stock model", "", 256)]
    assert rows[0]["command"].endswith("--only stock --samples 1")
    assert lines(folder / "out" / "models" / "tuned.json")[0]["trained_on"] == "made, then books"


def test_every_claim_gets_an_interval_and_a_verdict_or_a_reason(call, folder, monkeypatch):
    monkeypatch.setattr("longreach.evaluation.claims.base.SAMPLES", 8)
    assert "self_extend: the plain model finds 0." in call("evidence"), "no retrieval is claimed of a model that cannot recall"
    monkeypatch.setattr("longreach.evaluation.claims.base.RECALLS", 0.0)
    printed = call("evidence")
    rows = lines(folder / "out" / "made.jsonl")
    claims = [(method.name(), claim.text, claim.condition) for method in registry.methods() for claim in method.info.claims]
    shown = [(row["method"], row["paper_claim"], row["condition"]) for row in rows]
    left_out = [name for name, *claim in claims if (name, *claim) not in shown]
    assert {row["condition"] for row in rows} == {"untuned"}
    assert "linear: it is about tuned models; its claim is left out" in printed
    assert "ntk: it is about 512 tokens, and 256 are measured; its claim is left out" in printed
    assert all(f"{name}: " in printed and "its claim is left out" in printed for name in left_out)
    assert {"longrope", "interpolated_positions"} <= set(left_out)
    assert {row["verdict"] for row in rows} <= {"holds", "does not hold", "undecided"}
    by_metric = {row["metric"]: row for row in rows}
    exact = by_metric["largest difference of a logit from the model as it is, token by token over its window"]
    assert exact["low"] == exact["high"] == exact["number"]
    assert exact["of"] == "128 tokens"
    rise = next(row for row in rows if row["metric"] == "loss beyond the window above that inside, nats a token")
    assert rise["low"] < rise["number"] < rise["high"]
    assert (rise["of"], rise["bar"], rise["data"]) == ("2 texts", "at most 0.05", "book.txt")
    needles = by_metric["share of needles found at the target length, divided by the plain model's inside its window"]
    assert needles["of"] == "40 questions", "not the fewer ones that tell which setting is the best"

    first = (folder / "out" / "made.jsonl").read_bytes()
    monkeypatch.setattr(importlib.import_module("longreach.evaluation.measure"), "_score", lambda *args: pytest.fail("measured again"))
    call("evidence")
    assert (folder / "out" / "made.jsonl").read_bytes() == first


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        ("lengths", ("--to", "128"), "lengths: nothing to compare: 128 tokens are within the trained window of 128"),
        ("lengths", ("--also", "log_n"), "log_n suggests no setting of its own"),
        ("lengths", ("--also", "self_extend+logn"), "did you mean"),
        ("lengths", ("--name", "a/b"), "give another with --name"),
        ("lengths", ("--windows", "4000"), "the text is too short"),
        ("evidence", ("--fitted", "none.json"), "none.json"),
        ("evidence", ("--model", "./nowhere"), "evidence: no such folder: ./nowhere"),
    ],
)
def test_wrong_options_get_one_line(call, capsys, script, options, words):
    with pytest.raises(SystemExit) as stopped:
        call(script, *options)
    assert stopped.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{script}:")]
    assert len(error) == 1
    assert words.lower() in error[0].lower()
