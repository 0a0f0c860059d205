"""The recipes that train models for the evidence table run from end to end, in small."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from longreach.data.stdlib import stdlib_text

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, text = tmp_path_factory.mktemp("data"), stdlib_text("held-out")
    for split, part in (("train", text[:150_000]), ("valid", text[150_000:450_000])):
        (folder / split).mkdir()
        (folder / split / "one.txt").write_text(part, encoding="utf-8")
    return folder


def run(name, monkeypatch, *arguments, **smaller):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = __import__(name)
    for constant, value in smaller.items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    module.main()


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_an_encoder_is_trained_and_aligned(tmp_path, data, monkeypatch, capsys):
    given = ("--data", data, "--tokens", "0.002M", "--work", tmp_path / "work", "--evidence", tmp_path / "evidence")
    run("encoder", monkeypatch, *given, TEXTS=4, TIMES=(1, 2))
    told = rows(tmp_path / "evidence" / "t5-scratch.jsonl")
    assert [row["metric"].split(", ")[1][:5] for row in told] == ["below", "below", "above", "above"]
    assert {row["method"] for row in told} == {"attention_alignment"}
    assert all(row["low"] <= row["number"] <= row["high"] for row in told)
    assert "bits_per_byte" in capsys.readouterr().out
    run("encoder", monkeypatch, *given, TEXTS=4, TIMES=(1, 2))
    assert "bits_per_byte" not in capsys.readouterr().out, "what was trained is trained again"


def test_gaps_leave_a_window_and_can_be_filled(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    encoder = __import__("encoder")
    piece = np.arange(encoder._PIECE + 3 * encoder.WINDOW)
    source, answer = encoder.exercise(np.random.default_rng(0), piece, 10_000)
    assert len(source) == 4 * encoder.WINDOW
    gaps = {int(part[0]): part[1:].tolist() for part in np.split(answer, np.flatnonzero(answer >= 10_000)[1:])}
    assert sorted(map(len, gaps.values())) == list(encoder.GAPS)
    filled = [token for each in source.tolist() for token in gaps.get(each, [each])]
    assert filled == piece.tolist()
    marks = np.flatnonzero(source >= 10_000)
    assert (np.diff(marks) > 1).all()
    assert marks[0] >= 1.5 * encoder.WINDOW
    assert marks[-1] < 2.5 * encoder.WINDOW


def test_models_from_scratch_are_compared_and_then_tuned_by_samplers(tmp_path, data, monkeypatch, capsys):
    out, smaller = tmp_path / "evidence", {"TEXTS": 2, "TUNE_STEPS": 1, "SOURCE": 2000}
    monkeypatch.setattr("longreach.training.gate._COUNTS", (4,))  # windows: ten models pass the gate here, for form's sake
    given = ("--data", data, "--tokens", "0.002M", "--work", tmp_path / "work", "--evidence", out)
    run("scratch", monkeypatch, *given, "--methods", "rope", "nope", "nope+cable", **smaller)
    assert [row["method"] for row in rows(out / "llama-scratch.jsonl")] == ["nope", "cable", "head_temperature", "ntk_attention"]
    lengths = rows(out / "lengths" / "llama-scratch.jsonl")
    assert {row["length"] for row in lengths if row["method"] == "nope+cable"} == {128, 256, 512, 1024}
    assert all(row["loss"] > 0 for row in lengths)
    printed = capsys.readouterr().out
    run("scratch", monkeypatch, *given, "--methods", "rope", "nope", "nope+cable", **smaller)
    again = capsys.readouterr().out
    assert "bits_per_byte" in printed
    assert "bits_per_byte" not in again, "what was trained is trained again"
    run("samplers", monkeypatch, "--data", data, "--model", tmp_path / "work" / "rope", "--steps", 1, "--work", tmp_path / "runs",
        "--evidence", out, TEXTS=2, BATCH=8)  # fmt: skip
    found = {row["method"]: row for row in rows(out / "llama-scratch-tuned.jsonl")}
    assert set(found) == {"cream", "e2", "full_length", "harpe", "pose", "randomized", "segmented"}
    assert all(row["low"] <= row["number"] <= row["high"] for row in found.values())
