"""What is asked for to the end stands at the beginning."""

import importlib
from pathlib import Path

import pytest

from longreach.checkpoints.checkpoint import load_tokenizer
from longreach.decoding.encoder import Encoder


@pytest.mark.parametrize(("passkey", "facts"), [(True, 1), (False, 8)])
def test_facts_stand_in_the_first_hundredth(monkeypatch, passkey, facts):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    whole, frames = importlib.import_module("soak").haystack(Encoder(load_tokenizer("nano")), 40_000, passkey)
    assert whole.shape == (1, 40_000)
    assert len(frames) == facts
    ids = whole[0].tolist()
    for frame in frames:
        starts = [start for start in range(len(ids)) if ids[start : start + len(frame.fact)] == frame.fact]
        assert len(starts) == 1
        assert starts[0] < 400 + sum(len(each.head) + len(each.fact) for each in frames)
