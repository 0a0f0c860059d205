"""The script that measures the memory of attention in chunks, on a short text."""

import importlib
import re
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


def test_both_ways_give_the_same_and_both_are_measured(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    chunked = importlib.import_module("chunked")
    q, k, v = (torch.randn(1, 2, 50, chunked.HEAD_DIM) for _ in range(3))
    ways = [chunked.attend(way, q, k, v, "chunked:query_chunk=16,key_chunk=7") for way in chunked.WAYS]
    torch.testing.assert_close(*ways, rtol=0, atol=1e-5)
    threads = torch.get_num_threads()
    for way in chunked.WAYS:
        monkeypatch.setattr(sys, "argv", ["chunked", "--only", way, "both", "--tokens", "600"])
        chunked.main()
    torch.set_num_threads(threads)
    assert len(re.findall(r'^\{"bytes": \d+, "seconds": [\d.]+\}$', capsys.readouterr().out, re.MULTILINE)) == 2
