"""The script that measures expansions of abbreviations, on a model that knows one sentence."""

import importlib
import json
import sys
from pathlib import Path

from longreach.endpoint.base import ChatModel, Completion

ROOT = Path(__file__).resolve().parents[2]
BOOK = """
"Bring the horse, please," he said. "Where is the road?"

"I do not know," she said. "Who told you that?" It was "a strange and long question that nobody had asked here before him."

"The miller told me so." And then: "Shall we go now?"
"""


class Knows(ChatModel):
    """Always says the same."""

    name = "knows"
    window = 2048
    asked = 0

    def count(self, text):
        return len(text.split())

    def count_chat(self, messages):
        return self.count(messages[-1]["content"])

    def ask(self, request):
        Knows.asked += 1
        return Completion(text="the miller told me so", finish_reason="stop", seconds=0.0)


def test_a_sentence_is_right_word_for_word_and_is_asked_for_once(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    abbreviations = importlib.import_module("abbreviations")
    said = abbreviations.spoken(BOOK)
    assert said == ["Where is the road?", "Who told you that?", "The miller told me so.", "Shall we go now?"]
    monkeypatch.setattr(abbreviations, "ROWS", tmp_path / "rows")
    monkeypatch.setattr("longreach.conversation.local.LocalModel", lambda *loaded: Knows())
    monkeypatch.setattr("longreach.load", lambda name: ("model", "tokenizer"))
    monkeypatch.setattr(abbreviations, "EXAMPLES", 1)
    (tmp_path / "book.txt").write_text(BOOK, encoding="utf-8")
    arguments = ["abbreviations", "any", "--book", str(tmp_path / "book.txt"), "--said", "1", "--sentences", "2"]
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", arguments)
        abbreviations.main()
        asked, Knows.asked = Knows.asked, 0
    rows = [json.loads(line) for line in (tmp_path / "rows" / "any.jsonl").read_text().splitlines()]
    assert asked == 0
    assert {(row["sentence"], row["before"]) for row in rows} == {
        ("The miller told me so.", "Who told you that?"), ("Shall we go now?", "The miller told me so."),
    }  # fmt: skip
    assert {row["sentence"]: row["right"] for row in rows} == {"The miller told me so.": 1.0, "Shall we go now?": 0.0}
    assert {row["way"] for row in rows} == {"the 8 most similar", "8 at random", "none"}
    assert "| any | none | 50% | 50% of 2 | 50% | 2 | 6.0 |" in capsys.readouterr().out
