"""The script that compares with kvpress, which is not here: somebody who keeps known tokens stands in for it."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ROOT = Path(__file__).resolve().parents[2]
LENGTH, BUDGET = 120, 60


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "peers"))
    return importlib.import_module("kvpress_caches")


@pytest.mark.filterwarnings("ignore:Token indices")
def test_shares_of_kept_tokens_and_ratios_of_time(script, tmp_path, monkeypatch):
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=256).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    streaming = [*range(4), *range(LENGTH - BUDGET + 4, LENGTH)]

    def run(command, check):
        assert check
        given, found = (Path(command[command.index(name) + 1]) for name in ("--given", "--found"))
        read = json.loads(given.read_text())
        assert (len(read["ids"]), read["budget"]) == (LENGTH, BUDGET)
        kept = {"full": list(range(LENGTH)), "snapkv": list(range(LENGTH - BUDGET, LENGTH)), "sinks": streaming}
        rows = {name: {"kept": [[kept.get(name, streaming)] * 2] * 3, "prefill": 1e9, "decode": 1e-9} for name in script.specs(BUDGET)}
        torch.save(rows, found)

    monkeypatch.setattr(script.subprocess, "run", run)
    monkeypatch.setattr("longreach.data.stdlib.stdlib_text", lambda split: real_text())
    monkeypatch.setattr(script, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["peers", str(tmp_path / "tiny"), "--peer", "theirs", "--length", str(LENGTH), "--share", "0.5"])
    script.main()
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows" / f"tiny-{LENGTH}.json").read_text())}
    assert (rows["full"]["same"], rows["sinks"]["same"], rows["sinks"]["least"]) == (1, 1, 1)
    assert 32 / 60 <= rows["snapkv"]["least"] <= rows["snapkv"]["same"] < 1, "its window of 32 tokens stays"
    assert all(row["prefill"] < 1e-3 and row["decode"] > 1e3 for row in rows.values())
    assert f"| `snapkv:budget={BUDGET},window_size=32` | {BUDGET} | 0." in (tmp_path / "page.md").read_text()


def test_keys_are_found_where_they_stood(script):
    whole = torch.randn(2, 9, 4)
    kept = torch.stack([whole[0, [1, 4, 8]], whole[1, [7, 0, 3]]])
    assert script._places(kept, whole) == [[1, 4, 8], [0, 3, 7]]
