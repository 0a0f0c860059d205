"""The script that sets our win rates beside published ones, on a clone that is made up: its numbers come from a fit of its own."""

import csv
import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.preferences.difficulty import length_feature
from longreach.evaluation.preferences.logistic import Problem, cross_validated, sigmoid, solve
from tests.evaluation.preferences.simulated import entries, simulated

ROOT = Path(__file__).resolve().parents[2]
COUNT, SYSTEMS = 200, 16


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    found = importlib.import_module("debias")
    monkeypatch.setattr(found, "RESAMPLES", 20)
    monkeypatch.setattr(found, "PARTS", 4)
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder like AlpacaEval's: annotations, outputs, and what a fit with difficulties that are not in it made of them."""
    place = tmp_path_factory.mktemp("clone")
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 1.5, COUNT)
    shared = {"count": COUNT, "effect": 1.5, "baseline": rng.integers(300, 900, COUNT)}
    gamed = [simulated(90 + n, extra=extra, name=f"gpt4_1106_preview_{kind}", **shared) for n, (kind, extra) in enumerate(KINDS)]
    gamed_feature = np.concatenate([length_feature(one) for one in gamed])
    both = np.tile(hardness, 2)
    gamed_preference = (rng.random(2 * COUNT) < sigmoid(0.5 * gamed_feature + 0.7 * both)).astype(float)
    weights, board = [], []
    for n in range(SYSTEMS):
        file = simulated(n, quality=n / 6 - 1.5, extra=0.3, hardness=hardness, name=f"system {n}", **shared)
        feature = length_feature(file)
        x = np.stack([np.r_[gamed_feature, feature], np.r_[both, hardness], np.r_[np.zeros(2 * COUNT), np.ones(COUNT)]], axis=1)
        y = np.r_[gamed_preference, file.preference]
        problem = Problem(x=x, y=y, weight=np.r_[np.full(2 * COUNT, 0.1), np.ones(COUNT)])
        w = solve(problem, cross_validated(problem))[0]
        chance = 100 * sigmoid(w[2] + w[1] * hardness)
        weights.append([file.system, -w[0], w[1], w[2]])
        board.append([file.system, 100 * file.preference.mean(), chance.mean(), chance.std(ddof=1) / np.sqrt(COUNT)])
        _write(place / "results" / file.system, file, annotated=n % 4 > 0)
    for one in gamed:
        _write(place / "results" / one.system, one, annotated=False)
    source = place / "src" / "alpaca_eval"
    name = "weighted_alpaca_eval_gpt4_turbo"
    _table(source / "metrics" / "weights" / name / "length_controlled_v1" / "baseline_gpt4_1106_preview.csv", ["", "w", "b", "c"], weights)
    header = ["", "win_rate", "length_controlled_winrate", "lc_standard_error"]
    _table(source / "leaderboards" / "data_AlpacaEval_2" / f"{name}_leaderboard.csv", header, board)
    return place


KINDS = (("verbose", 1.0), ("concise", -1.0))


def _write(folder, file, annotated):
    made = [{**entry, "generator_1": "gpt4_1106_preview"} for entry in entries(file)]
    kept = folder / "weighted_alpaca_eval_gpt4_turbo"
    kept.mkdir(parents=True)
    outputs = [{"instruction": entry["instruction"], "output": entry["output_2"]} for entry in made]
    (folder / "model_outputs.json").write_text(json.dumps(outputs), encoding="utf-8")
    if annotated:
        (kept / "annotations.json").write_text(json.dumps(made), encoding="utf-8")


def _table(path, header, rows):
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_what_is_not_in_the_clone_is_recovered_from_what_was_published(script, clone):
    found = script.lines(clone)
    assert {line.name for line in found} == {f"system {n}" for n in range(SYSTEMS) if n % 4}
    assert [line.published for line in found] == sorted((line.published for line in found), reverse=True)
    off = {way: np.abs([line.off(way) for line in found]).mean() for way in ("held_out", "inside", "joint", "alone")}
    assert off["inside"] < 0.2  # where cross-validation takes another penalty, for it sees other gamed preferences
    assert off["held_out"] < 0.25
    assert off["held_out"] < off["joint"] / 3
    text = script.page(found)
    assert "Of 12 systems, points from the published length-controlled win rate:" in text
    assert text.count("\n| system ") == 13


def test_a_folder_without_results_is_refused(script, tmp_path):
    with pytest.raises(InputError, match="give a clone of github.com/tatsu-lab/alpaca_eval"):
        script.lines(tmp_path)


def test_wildbenchs_published_counts(script, tmp_path):
    folder = tmp_path / "leaderboard" / "data_dir"
    folder.mkdir(parents=True)
    row = {"win_much": 2, "win": 3, "tie": 1, "lose": 2, "lose_much": 0, "total": 10, "reward": 0.25}
    (folder / "pairwise-haiku-K=-1.json").write_text(json.dumps({"a": row}), encoding="utf-8")
    ruled = row | {"win": 2, "tie": 2, "reward": 0.2}
    (folder / "pairwise-haiku-K=500.json").write_text(json.dumps({"a": ruled}), encoding="utf-8")
    told = script.wildbench(tmp_path)
    assert "2 published rewards" in told
    assert "comes out to 0e+00 points; in 2 of 2 clear wins" in told
    assert told.endswith("none is in the clone.")
    results = tmp_path / "eval_results/v2.0522/pairwise.v2/eval=judge/ref=claude-3-haiku-20240307"
    results.mkdir(parents=True)
    texts = {"a": "x" * 900, "claude-3-haiku-20240307": "x"}
    outcomes = [("a", 2)] * 2 + [("a", 1)] + [("tie", 0)] * 5 + [("claude-3-haiku-20240307", 1)] * 2
    made = [
        {
            "session_id": "s",
            "model_A": "a",
            "model_B": "claude-3-haiku-20240307",
            "winner": winner,
            "extent": extent,
            "model_outputs": texts,
        }
        for winner, extent in outcomes
    ]
    (results / "a.json").write_text(json.dumps(made), encoding="utf-8")
    row |= {"win": 1, "tie": 5, "reward": 0.15}
    for rule, counts in (("-1", row), ("500", row | {"win": 0, "tie": 6, "reward": 0.1})):
        (folder / f"pairwise-haiku-K={rule}.json").write_text(json.dumps({"a": counts}), encoding="utf-8")
    assert "Pairwise results themselves: 2 of 2 have the published reward." in script.wildbench(tmp_path)


def test_how_often_intervals_hold_the_truth_is_told(script):
    told = script.coverage((40,), draws=20)
    assert re.search(r"Of 20 simulated systems .* second: \d+% and \d+% for 40 comparisons\.$", told)
