import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from longreach.checkpoints.record import read_record
from longreach.cli import stretch as verb
from longreach.cli.main import run
from longreach.core.progress import Progress
from longreach.stretching import stretch as stretching
from longreach.stretching.choice import choose
from longreach.stretching.clock import Clock
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.made import outcome
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

QUICK = ("--to", "256", "--text", "book.txt", "--windows", "2", "--samples", "1", "--depths", "0.5")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a random model with a trained window of 128 tokens."""
    place = tmp_path_factory.mktemp("checkpoint")
    tiny_model(vocab_size=VOCABULARY).save_pretrained(place)
    tokenizer().save_pretrained(place)
    return place


@pytest.fixture
def folder(checkpoint, tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` and the text book.txt."""
    shutil.copytree(checkpoint, tmp_path / "tiny")
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def chosen(folder, monkeypatch):
    """The measuring is done, with an outcome made by hand."""

    def done(**changes):
        monkeypatch.setattr(stretching, "stretch", lambda *args, **settings: outcome(**changes))

    return done


@pytest.mark.usefixtures("folder")
def test_from_the_model_to_the_report(folder, capsys):
    command = ("stretch", "tiny", *QUICK, "--methods", "linear; sinks", "--methods", "yarn:factor=2", "--out", "far", "--force")
    assert run(command) == 0
    out = capsys.readouterr().out
    for words in ("stock model", "linear:factor=2", "sinks:window_size=124", "yarn:factor=2", "past the window", "Saved: far"):
        assert words in out
    assert out.endswith("Report: far-report/report.html\nRows: longreach-results/rows/tiny.jsonl\n")
    assert sorted(file.name for file in (folder / "far-report").iterdir()) == ["report.csv", "report.html", "report.json"]
    report = json.loads((folder / "far-report" / "report.json").read_text())
    assert report["command"] == (
        "longreach stretch tiny --to 256 --methods 'linear; sinks' --methods yarn:factor=2 --text book.txt --out far --force "
        "--windows 2 --samples 1 --depths 0.5"
    )
    assert read_record(folder / "far").target == 256
    lines = (folder / "longreach-results/rows" / "tiny.jsonl").read_text()
    assert run([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["rows"] == report["rows"]
    assert (folder / "longreach-results/rows" / "tiny.jsonl").read_text() == lines


@pytest.fixture
def books(folder):
    """Text to train on."""
    (folder / "books").mkdir()
    (folder / "books" / "one.txt").write_text(real_text()[100_000:140_000], encoding="utf-8")
    (folder / "books" / "cover.png").write_bytes(b"\x89PNG\xff\x00")


TUNE = ("--tune", "2", "--data", "books", "--for", "streaming", "--text", "book.txt", "--windows", "2", "--to", "256")


@pytest.mark.usefixtures("books")
def test_tuning_is_chained_onto_the_tournament(folder, capsys):
    command = [
        "stretch",
        "tiny",
        *TUNE,
        "--methods",
        "linear:factor=2",
        "--sampler",
        "randomized",
        "--lr",
        "0.003",
        "--full",
        "--out",
        "far",
    ]
    assert run([*command, "--force"]) == 0
    out = capsys.readouterr().out
    for words in (
        "linear:factor=2, tuned 2 steps", "linear:factor=2+log_n, tuned 2 steps", "linear:factor=2+resonance, tuned 2 steps",
        "Not read: 1 file (cover.png is no UTF-8 text).",
        "under linear:factor=2, positions by randomized, in 2 steps of 128-token sequences.", "bar +1 %", "Saved: far",
    ):  # fmt: skip
        assert words in out
    report = json.loads((folder / "far-report" / "report.json").read_text())
    assert report["tuning"]["method"] == "linear:factor=2"
    assert report["command"].startswith("longreach stretch tiny --to 256 --for streaming")
    assert "--tune 2 --data books --sampler randomized --lr 0.003 --full" in report["command"]
    assert (folder / "longreach-results/runs" / "tiny-256" / "run.json").is_file()
    (best,) = [one for one in report["methods"] if one["best"]]
    trained = {name for name, value in weights("far").items() if not torch.equal(value, weights("tiny")[name])}
    assert bool(trained) == bool(best["tuned"]), "what is saved is what was chosen"
    lines = (folder / "longreach-results/rows" / "tiny.jsonl").read_text()
    assert run([*command, "--force", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["rows"], again["tuning"]["resumed_at"]) == (report["rows"], 2)
    assert (folder / "longreach-results/rows" / "tiny.jsonl").read_text() == lines
    assert run([*command, "--tune", "3"]) == 2
    assert "longreach-results/runs/tiny-256 holds a run with other settings (steps=2); give those to go on" in capsys.readouterr().err


def weights(folder):
    return load_file(f"{folder}/model.safetensors")


@pytest.mark.usefixtures("books")
@pytest.mark.parametrize("tuned", [True, False])
def test_the_winner_is_saved_tuned_or_as_it_was(tuned, folder, monkeypatch, capsys):
    def ended(model, tokenizer, *, tuner, **settings):
        trained = tuner(["self_extend:neighbours=64,group=2", "ntk:factor=8"], Progress())
        assert (trained.method, trained.steps, trained.lost) == ("ntk:factor=8", 2, tuner.tuned.gate.shortfall)
        return outcome(tuned=2 if tuned else 0)

    monkeypatch.setattr(stretching, "stretch", ended)
    assert run(["stretch", "tiny", *TUNE, "--to", "512", "--out", "far"]) == 0
    out = capsys.readouterr().out
    record = read_record(folder / "far")
    assert (record.method, record.exported, record.target) == ("ntk:factor=8", True, 512)
    assert "Saved: far (transformers loads it without longreach; checked in plain transformers, logits differ by at most" in out
    same = all(torch.equal(value, weights("tiny")[name]) for name, value in weights("far").items())
    assert same is not tuned
    assert ("vllm serve MODEL" in out) is not tuned


def test_learned_positions_are_stretched_and_their_export_proven(folder, capsys):
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(folder / "tiny")
    command = ("stretch", "tiny", "--to", "256", "--text", "book.txt", "--windows", "2", "--for", "streaming", "--out", "far", "--force")
    assert run([*command, "--methods", "interpolated_positions;linear:factor=2"]) == 2
    assert "it has no rotary position embedding" in capsys.readouterr().err
    assert run([*command, "--methods", "interpolated_positions"]) == 0
    out = capsys.readouterr().out
    assert "Not tried: stock model: it cannot read beyond 128 tokens: its table of positions ends there." in out
    assert "Saved: far (transformers loads it without longreach; checked in plain transformers" in out
    assert read_record(folder / "far").method == "interpolated_positions:factor=2"


def test_the_winner_is_saved_and_its_export_proven(folder, chosen, capsys):
    chosen()
    assert run(["stretch", "tiny", "--to", "512", "--out", "far"]) == 0
    out = capsys.readouterr().out
    record = read_record(folder / "far")
    assert (record.method, record.exported, record.target) == ("ntk:factor=8", True, 512)
    assert "Saved: far (transformers loads it without longreach; checked in plain transformers, logits differ by at most" in out
    assert "vllm: vllm serve MODEL" in out
    assert "llama.cpp: llama-server" in out
    saved = json.loads((folder / "far-report" / "report.json").read_text())["saved"]
    assert saved["folder"] == "far"
    assert saved["difference"] <= 1e-4


def test_nothing_is_saved_where_nothing_is_good_enough(folder, chosen, capsys):
    chosen(target_right=5)
    assert run(["stretch", "tiny", "--to", "512", "--out", "far"]) == 1
    assert not (folder / "far").exists()
    assert "Nothing was saved to far; --force saves the best method all the same." in capsys.readouterr().out
    assert json.loads((folder / "far-report" / "report.json").read_text())["chosen"] is None
    assert run(["stretch", "tiny", "--to", "512"]) == 0
    assert (folder / "longreach-results/report" / "report.html").exists()


def test_the_table_shows_what_was_measured_in_full_and_the_choice_first(folder, chosen, capsys):
    chosen()
    assert run(["stretch", "tiny", "--to", "512"]) == 0
    out = capsys.readouterr().out
    table, below = out.split("ntk:factor=8: chosen")
    header = " ".join(line.strip() for line in table.splitlines()[:3])
    assert header.split() == ["loss", "increase", "method", "needles", "found", "past", "the", "window", "tokens/s", "memory"]
    lines = [line.split()[0] for line in table.splitlines()[4:] if line.strip()]
    assert lines == ["ntk:factor=8", "stock", "yarn:factor=4"]
    assert re.search(r"ntk:factor=8 +80 of 80 +\+0\.010 +1000 +2 MB", table)
    assert re.search(r"stock model +24 of 80 +\+0\.700 ", table)
    assert "Screened on one text: sinks:window_size=124: forgets the middle of the text.\n" in below
    assert "Not tried: linear:factor=4: its rotary embedding is <scaled>; start anew.\n" in below
    assert run(["stretch", "tiny", "--to", "512", "--json"]) == 0
    assert "sinks:window_size=124" in [one["method"] for one in json.loads(capsys.readouterr().out)["methods"]]


def test_a_model_that_finds_too_little_is_shown_without_needles(folder, monkeypatch, capsys):
    found = outcome()
    silent = tuple(replace(one, retrieval=None, prompts=0, right=0.0) for one in found.standings)
    choice = choose(silent, "recall", 512, 0.1)
    monkeypatch.setattr(stretching, "stretch", lambda *args, **settings: replace(found, standings=silent, short=0.1, choice=choice))
    assert run(["stretch", "tiny", "--to", "512"]) == 0
    out = capsys.readouterr().out
    assert "needles found" not in out
    assert "Inside its own window the model finds 10% of the needles, so that retrieval says nothing about it" in out


@pytest.mark.usefixtures("folder")
def test_a_budget_that_does_not_suffice_for_the_model_is_one_line_and_keeps_rows(folder, monkeypatch, capsys):
    spent = itertools.count()
    monkeypatch.setattr(Clock, "spent", property(lambda self: next(spent)))
    command = ["stretch", "tiny", *QUICK, "--methods", "linear"]
    assert run([*command, "--budget", "5s"]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err == ("error: the time budget of 5 s was spent before the model as it is was measured; give more, or a shorter length")
    kept = (folder / "longreach-results/rows/tiny.jsonl").read_text()
    assert kept
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(command) == 0
    assert (folder / "longreach-results/rows/tiny.jsonl").read_text().startswith(kept)
    assert "Estimated time: at most about" in capsys.readouterr().err


def test_a_stopped_run_says_where_its_rows_are(folder, monkeypatch, capsys):
    def stopped(*args, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(stretching, "stretch", stopped)
    assert run(["stretch", "tiny", "--to", "512"]) == 130
    assert "What was measured is kept in longreach-results/rows/tiny.jsonl; the same command goes on from there." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "far"], "not a length: 'far'"),
        (["--to", "128"], "128 tokens are within the trained window of 128"),
        (["--to", "1M", "--text", "book.txt"], "the text is too short: it has"),
        (["--to", "256", "--methods", "yran"], "did you mean yarn"),
        (["--to", "256", "--methods", ";"], "no method to try"),
        (["--to", "256", "--for", "speed"], "'speed' is not one of"),
        (["--to", "256", "--depths", "deep"], "--depths deep: not numbers"),
        (["--to", "256", "--out", "tiny"], "tiny exists and is not a longreach checkpoint"),
        (["--to", "256", "--out", "far", "--report", "far/report"], "--report far/report lies in --out"),
        (["--to", "256", "--report", "book.txt"], "--report book.txt cannot be written to (Not a directory); choose another folder"),
        (["--to", "256", "--out", "book.txt/far"], "book.txt/far cannot be written to"),
        (["--to", "256", "--force"], "--force has no effect without --out"),
        (["--to", "256", "--text", "missing.txt"], "cannot read missing.txt"),
        (["--to", "256", "--tune", "0", "--data", "tiny"], "--tune 0: give at least 1 step"),
        (["--to", "256", "--tune", "many", "--data", "tiny"], "Invalid value for '--tune': Input should be a valid integer"),
        (["--to", "256", "--tune", "2"], "--tune needs text to train on; give --data FOLDER"),
        (["--to", "256", "--data", "tiny"], "--data has no effect without --tune STEPS"),
        (["--to", "256", "--full"], "--full has no effect without --tune STEPS"),
        (["--to", "256", "--lr", "0.1"], "--lr has no effect without --tune STEPS"),
        (["--to", "256", "--tune", "2", "--data", "none"], "none is not a folder"),
        (["--to", "256", "--tune", "2", "--data", "tiny", "--lr", "3"], "lr=3 must be above 0"),
        (["--to", "256", "--tune", "2", "--data", "tiny", "--sampler", "posse"], "did you mean pose"),
        (["--to", "256", "--tune", "2", "--data", "tiny", "--trained-window", "64"], "--trained-window has no effect on --tune"),
        (["--to", "256", "--tune", "2", "--data", "tiny", "--out", "far", "--work", "far/run"], "must lie beside each other"),
        (["--to", "256", "--tune", "2", "--data", "tiny", "--work", "book.txt"], "--work book.txt cannot be written to"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_one_line_and_measures_nothing(arguments, says, folder, capsys):
    assert run(["stretch", "tiny", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    last = err.splitlines()[-1]  # bars of loading may stand before it
    assert last.startswith("error: ")
    assert says in last
    assert {file.name for file in folder.iterdir()} == {"tiny", "book.txt"}


@pytest.mark.usefixtures("folder")
def test_what_cannot_be_trained_is_refused_before_anything_is_measured(folder, capsys):
    for name, text in (("blank", " "), ("few", "One day the cat sat on the mat.")):
        (folder / name).mkdir()
        (folder / name / "one.txt").write_text(text)
    command = ("stretch", "tiny", "--to", "256", "--text", "book.txt", "--tune", "2")
    for data, says in (("blank", "blank holds no text"), ("few", "too little text to train on: pose takes sequences from 257 tokens")):
        assert run([*command, "--data", data]) == 2
        assert says in capsys.readouterr().err
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(folder / "tiny")
    (folder / "few" / "one.txt").write_text(real_text()[:40_000])
    assert run([*command, "--data", "few"]) == 2
    assert "it has no rotary position embedding" in capsys.readouterr().err
    assert not (folder / "longreach-results/rows").exists()


def test_the_verb_is_light():
    code = f"import sys, {verb.__name__}; print('torch' in sys.modules, 'rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False False\n"
