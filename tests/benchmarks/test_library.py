"""The script that measures documents from the library, on a random model."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, tokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore:Token indices")
def test_what_is_lost_stands_beside_what_one_reading_gives(tmp_path, monkeypatch, capsys):
    tiny_model(vocab_size=VOCABULARY, num_hidden_layers=1, max_position_embeddings=512).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["library", "--model", str(tmp_path / "tiny"), "--tokens", "140", "--texts", "2"])
    monkeypatch.delitem(sys.modules, "library", raising=False)
    importlib.import_module("library").main()
    monkeypatch.delitem(sys.modules, "library")
    printed = capsys.readouterr().out
    # What a layer keeps of a token does not hang on the ones before it where there is only one: nothing is lost.
    (row,) = re.findall(r"\| both, from the library \|.*", printed)
    assert [float(found) for found in re.findall(r"\(([+-]\d+\.\d{3}),", row)] == [0, 0, 0]
    (alone,) = re.findall(r"\| the second alone \|.*", printed)
    assert any(abs(float(found)) > 0.01 for found in re.findall(r"\(([+-]\d+\.\d{3}),", alone))
    assert re.search(r"A document of 14\d tokens .*: reading .* bytes a token; (pays from question|does not pay)", printed)
