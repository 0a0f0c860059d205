import importlib
import json
import sys

import pytest


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    module = importlib.import_module("workflows")
    yield module
    del sys.modules["workflows"]


def run(benchmark, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["workflows.py", *map(str, arguments)])
    benchmark.main()


def test_what_workflows_find_is_measured_once_and_drawn(benchmark, monkeypatch, tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    asked = ["perfect", "--window", 400, "--windows", 3, "--passages", 2, "--tasks", "passkey", "--rows", rows]
    run(benchmark, monkeypatch, *asked, "--only", "truncate:keep=start", "--only", "map_reduce")
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert [row["workflow"] for row in found] == ["truncate:keep=start", "map_reduce"] * 2
    assert {row["score"] for row in found if row["workflow"] == "map_reduce"} == {1.0}
    assert all(row["calls"] == 1 and row["coverage"] < 0.6 for row in found if row["workflow"] == "truncate:keep=start")
    run(benchmark, monkeypatch, *asked, "--only", "map_reduce")
    assert len(rows.read_text(encoding="utf-8").splitlines()) == len(found), "what was measured is measured again"
    capsys.readouterr()
    run(benchmark, monkeypatch, "perfect", "--page", tmp_path / "page.md", rows)
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "## perfect, windows of 400 tokens, 2 questions a cell" in page
    assert "| `map_reduce` | 1.00 |" in page
