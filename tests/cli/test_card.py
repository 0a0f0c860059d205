import json
import re

import pytest

from longreach.cli.main import run
from longreach.testing.endpoint_server import EndpointServer

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


def test_a_card_within_a_budget_says_what_there_was_no_time_for(capsys, monkeypatch):
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("longreach.evaluation.time_limit.TimeLimit.fits", lambda limit, task, length: length < 512)
        assert run([*QUICK, "--budget", "20m"]) == 0
    shown = capsys.readouterr().out
    assert "Passages that there was no time for: 4 of 512. Run the command again to go on." in shown
    assert run([*QUICK, "--budget", "20m"]) == 0
    assert "no time" not in capsys.readouterr().out


def test_a_budget_that_does_not_suffice_for_anything_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr("longreach.evaluation.time_limit.TimeLimit.fits", lambda limit, task, length: False)
    assert run([*QUICK, "--budget", "1s"]) == 2
    assert "--budget 1s does not suffice for a single passage" in capsys.readouterr().err


def test_a_card_of_what_an_endpoint_serves(folder, capsys):
    def finds(body):
        """The key, in texts of up to 3,000 characters."""
        asked = body["messages"][-1]["content"]
        return max(re.findall(r"\d{3,}", asked), default="none") if len(asked) < 3000 else "I forgot."

    with EndpointServer(finds) as server:
        asked = ["card", "--endpoint", server.url, "--tasks", "passkey", "--unit", "characters", "--limit", "30", "--record", "calls.jsonl"]
        assert run([*asked, "--lengths", "1k:4k", "--out", "card"]) == 0
        assert run(asked) == 2
    assert "an endpoint states its window in tokens; give --to or --lengths" in capsys.readouterr().err
    made = json.loads((folder / "card/card.json").read_text())
    (card,) = made["cards"]
    (literal,) = card["abilities"]
    assert ([step["mean"] for step in literal["steps"]], literal["usable"], literal["missed_at"]) == ([1.0, 1.0, 0.0], 2048, 4096)
    assert "--endpoint URL --served-model" in made["command"]
    assert "--unit characters" in made["command"]
    assert server.url not in (folder / "card/card.html").read_text(encoding="utf-8")


def test_a_card_goes_as_far_as_the_endpoint_states_and_says_what_got_no_answer(folder, capsys):
    with EndpointServer(lambda body: "none", window=640, most_characters=1000) as server:
        asked = ["card", "--endpoint", server.url, "--tokenizer", "tiny", "--tasks", "passkey:digits=3", "--limit", "2"]
        assert run([*asked, "--out", "card"]) == 0
    assert json.loads((folder / "card/card.json").read_text())["cards"][0]["lengths"][-1] == 640
    assert "2 questions got no answer; run the command again to ask again. The first: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["card"], "name a MODEL, an endpoint with --endpoint URL, or cards to draw"),
        (["card", "tiny", "--endpoint", "http://localhost:1"], "and not both"),
        (["card", "--endpoint", "http://localhost:1"], "lengths in tokens need --tokenizer NAME"),
        (["card", "tiny", "--budget", "soon"], "--budget soon: no time; write 90s, 20m or 2h"),
        (["card", "--endpoint", "http://localhost:1", "--budget", "9m"], "--budget has no effect with --endpoint"),
        (["card", "tiny", "--more-tokens", "9"], "--more-tokens has no effect without --endpoint"),
        (["card", "--endpoint", "http://localhost:1", "--tokenizer", "tiny", "--method", "yarn"], "--method has no effect with --endpoint"),
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
