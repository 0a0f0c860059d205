"""Runs the recipes of experiments/ in small, in the process of the tests."""

import json
import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def run(name, monkeypatch, *arguments, **smaller):
    monkeypatch.syspath_prepend(EXPERIMENTS)
    module = __import__(name)
    for constant, value in smaller.items():
        monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    module.main()


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
