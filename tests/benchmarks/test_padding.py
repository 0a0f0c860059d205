"""The script that compares batches with and without padding, on a few short texts."""

import importlib
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def test_every_way_to_read_is_timed(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    padding = importlib.import_module("padding")
    ids, mask = padding.batch(5, 64, 97, left=True)
    assert sorted(mask.sum(1).tolist()) == [16, 23, 32, 45, 64]
    assert bool(mask[:, -1].all())
    assert torch.equal(ids == 0, mask == 0)
    monkeypatch.setattr(sys, "argv", ["padding", "--texts", "2", "--longest", "24", "--rounds", "1"])
    threads = torch.get_num_threads()
    padding.main()
    torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert re.findall(r"^(encode|prefill), float32: 2 texts of 16 to 24 tokens, 83% real", out, re.MULTILINE) == ["encode", "prefill"]
    assert len(re.findall(r"(?:padding_free|prepack) [\d.]+ times as fast as padded, [\d.]+ of useful", out)) == 4
