"""The script that measures what eviction costs, on a random model."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore:Token indices")
def test_every_method_stands_beside_the_whole_cache(tmp_path, monkeypatch, capsys):
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=1024).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    given = [str(tmp_path / "tiny"), "--length", "500", "--texts", "2", "--shares", "2,0.25", "--only", "snapkv", "--only", "h2o"]
    monkeypatch.setattr(sys, "argv", ["eviction", *given])
    eviction = importlib.import_module("eviction")
    monkeypatch.setattr(eviction, "stdlib_text", lambda split: real_text()[:12_000])
    monkeypatch.setattr(eviction, "ROWS", tmp_path / "rows")
    monkeypatch.setattr(eviction, "PAGE", tmp_path / "page.md")
    eviction.main()
    rows = json.loads((tmp_path / "rows" / "tiny-500.json").read_text(encoding="utf-8"))
    assert [(row["method"], row["share"]) for row in rows] == [("full", None), ("snapkv", 2), ("h2o", 2), ("snapkv", 0.25), ("h2o", 0.25)]
    whole, *enough, cut, _ = rows
    assert whole["bytes"] == 1
    for row in enough:
        assert row["rises"] == pytest.approx([0, 0], abs=1e-5), "a budget above all tokens loses nothing"
    assert any(abs(rise) > 1e-3 for rise in cut["rises"])
    assert cut["bytes"] < 0.5
    lines = re.findall(r"\| `(.*?)` \| (\S+) \|", (tmp_path / "page.md").read_text(encoding="utf-8"))
    assert lines == [
        ("full", "all"), ("h2o:budget=1000", "2"), ("snapkv:budget=1000", "2"), ("h2o:budget=125", "0.25"), ("snapkv:budget=125", "0.25"),
    ]  # fmt: skip
    assert "full None" in capsys.readouterr().out
