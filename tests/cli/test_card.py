import json
import re

import pytest

from longreach.cli.main import run

QUICK = ("card", "tiny", "--tasks", "needle,passkey:digits=3", "--lengths", "256:512", "--limit", "2", "--text", "book.txt")


@pytest.fixture(autouse=True)
def folder(tiny_folder):
    return tiny_folder


def test_a_card_and_a_gallery_of_two(folder, capsys):
    assert run([*QUICK, "--method", "stock", "--method", "yarn:factor=4"]) == 0
    shown = capsys.readouterr().out
    assert "tiny under yarn:factor=4" in shown
    assert "Page: longreach-results/card-tiny/card.html" in shown
    page = (folder / "longreach-results/card-tiny/card.html").read_text(encoding="utf-8")
    assert "How far tiny can be used" in page
    assert "http" not in page
    made = json.loads((folder / "longreach-results/card-tiny/card.json").read_text())
    assert [(one["model"], one["method"], one["lengths"]) for one in made["cards"]] == [
        ("tiny", "", [256, 512]), ("tiny", "yarn:factor=4", [256, 512]),
    ]  # fmt: skip
    assert made["cards"][0]["speed"][0]["peak_bytes"] is not None
    assert "--lengths 256,512 --tasks needle,passkey:digits=3" in made["command"]
    rows = folder / "longreach-results/rows/tiny.jsonl"
    lines = rows.read_text()
    assert run([*QUICK, "--method", "stock"]) == 0
    assert rows.read_text() == lines, "nothing is asked twice"
    capsys.readouterr()
    cards = [part for _ in range(2) for part in ("--gallery", "longreach-results/card-tiny/card.json")]
    assert run(["card", *cards, "--out", "gallery"]) == 0
    gallery = (folder / "gallery/card.html").read_text(encoding="utf-8")
    assert gallery.count('<th scope="row">tiny</th>') >= 2
    assert not re.search(r"<script|src=", gallery)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["card"], "name a MODEL, or cards to draw"),
        (["card", "tiny", "--gallery", "a.json"], "and not both"),
        (["card", "--gallery", "book.txt", "--out", "o"], "book.txt is no card"),
        (["card", "--gallery", "none.json", "--out", "o"], "cannot read none.json"),
        (["card", "--gallery", "none.json"], "--gallery needs --out DIR"),
        (["card", "tiny", "--to", "512", "--lengths", "256"], "choose one"),
        (["card", "tiny", "--method", "stock stock"], "one of them is named twice"),
        (["card", "tiny", "--to", "16", "--tasks", "needle"], "needle needs a length of"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, capsys):
    assert run(arguments) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
