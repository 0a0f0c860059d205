"""The script that measures how long texts get, on writers that keep to a script."""

import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_lengths_are_measured_once_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    writing = importlib.import_module("writing")
    monkeypatch.setattr(writing, "ROWS", tmp_path / "rows")
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["writing", "--scripted", "--words", "600", "--workflow", "plan_write", "--workflow", "patent"])
        writing.main()
    rows = [json.loads(line) for line in (tmp_path / "rows" / "scripted.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {row["found"] for row in rows if row["way"] == "one call"} == {600, 300, 800}
    assert all(row["score"] > 90 for row in rows if row["way"] != "one call")
    assert min(row["score"] for row in rows if row["way"] == "plan_write") > 95
    assert all(row["read"] + row["written"] <= row["at_most"] for row in rows)
    assert "| scripted: half of it | one call | 300 (S_l 50) | 1 | 319 |" in capsys.readouterr().out
