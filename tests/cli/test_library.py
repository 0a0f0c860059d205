import io
import json
import os
import re
import sys
import time

import pytest

from longreach.checkpoints.checkpoint import load, save
from longreach.cli._options import parse_bytes
from longreach.cli.library import _pays
from longreach.cli.main import run
from longreach.decoding.writing import generate
from longreach.library import Library, library
from longreach.library.frame import frame
from longreach.library.shelf import Manifest
from tests.checkpoints.folders import TEMPLATE, edit, write_folder

pytestmark = pytest.mark.usefixtures("no_bars")

TEXT, OTHER = "Once upon a time there was a cache.", "It was kept in a library."


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model that never ends by itself."""
    return write_folder(tmp_path_factory.mktemp("made") / "tiny", eos_token_id=None)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with two texts; the library lies in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREACH_LIBRARY", str(tmp_path / "shelf"))
    (tmp_path / "story.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "other story.md").write_text(OTHER, encoding="utf-8")
    return tmp_path


@pytest.fixture
def call(place, capsys):
    """Run a command that works; returns what it printed."""

    def run_it(*arguments):
        code = run(["library", *arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run_it


def answer(made, document, spec=""):
    """What the whole text gives."""
    model, tokenizer = load(made)
    around = frame(tokenizer, chat=False)
    whole = tokenizer.decode([*around.document(document, ""), *around.question("Where?")[0].tolist()])
    return "".join(generate(model, tokenizer, whole, method=spec, max_new_tokens=8)) + "\n"


def test_add_says_what_it_costs_and_ask_answers(call, made, capsys):
    out = call("add", "story.txt", "other story.md", "--model", str(made))
    first = r"story: 38 tokens read in \d+\.\d\d s; 0\.02 MB on disk, 4\d\d bytes a token\n"
    assert re.match(
        first + r"  a question costs \d+\.\d\d s to load it, against \d+\.\d\d s to read it again: .*\nother story: 28 tok", out
    )
    assert call("ask", "story", "Where?", "--max-new-tokens", "8") == answer(made, TEXT)
    again = call("add", "story.txt", "--model", str(made), "--name", "tale")
    assert re.fullmatch(r"tale is in the library already, as story \(38 tokens, added \d{4}-\d\d-\d\d\); it was not read again\n", again)
    assert run(["library", "ask", "story", "other story", "Where?", "--max-new-tokens", "8"]) == 0
    out, err = capsys.readouterr()
    assert len(out) > 1
    assert err == f"warning: {library.APART}\n"


def test_drawing_is_repeatable(call, made):
    call("add", "story.txt", "--model", str(made))
    how = ("--max-new-tokens", "12", "--temperature", "2", "--top-k", "50", "--top-p", "0.99")
    drawn = [call("ask", "story", "Where?", *how, "--seed", seed) for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("spec", ["self_extend:neighbours=16,group=4", "yarn:factor=9"])
def test_the_method_is_remembered(call, made, place, spec):
    (place / "long.txt").write_text(TEXT * 5)
    call("add", "long.txt", "--model", str(made), "--method", spec)
    assert call("ask", "long", "Where?", "--max-new-tokens", "8") == answer(made, TEXT * 5, spec=spec)


def test_an_automatic_factor_leaves_room_for_question_and_answer(call, made):
    call("add", "story.txt", "--model", str(made), "--method", "yarn:factor=auto")
    call("add", "other story.md", "--model", str(made), "--method", "yarn:factor=auto", "--to", "256")
    rows = {row["name"]: row for row in json.loads(call("list", "--json"))}
    assert rows["story"]["method"] == f"yarn:factor={(38 + library.ROOM) / 128!r}"
    assert rows["other story"]["method"] == "yarn:factor=2"


def test_a_checkpoint_s_own_method_and_dtype_are_remembered(call, made, place):
    save(*load(made), place / "own", method="self_extend:neighbours=16,group=4", target=512)
    call("add", "story.txt", "--model", "own", "--dtype", "bfloat16")
    (row,) = json.loads(call("list", "--json"))
    assert (row["method"], row["options"]) == ("self_extend:neighbours=16,group=4", {"dtype": "bfloat16"})
    call("ask", "story", "Where?", "--max-new-tokens", "2")


def test_a_model_that_has_moved(call, made, place, capsys):
    model = write_folder(place / "here", eos_token_id=None)
    call("add", "story.txt", "--model", "here")
    model.rename(place / "there")
    assert run(["library", "ask", "story", "Where?"]) == 2
    assert capsys.readouterr().err == f"error: no such folder: {model}\n"
    assert f"story: its model is not where it was (no such folder: {model}); give --model" in call("list")
    assert call("ask", "story", "Where?", "--max-new-tokens", "8", "--model", "there") == answer(made, TEXT)


def test_a_chat_template_is_used_unless_it_is_not_wanted(call, made, place):
    model, tokenizer = load(made)
    tokenizer.chat_template = TEMPLATE
    save(model, tokenizer, place / "chat")
    call("add", "story.txt", "--model", "chat")
    call("add", "story.txt", "--model", "chat", "--plain", "--name", "plain")
    assert [(row["name"], row["chat"]) for row in json.loads(call("list", "--json"))] == [("plain", False), ("story", True)]
    assert call("ask", "plain", "Where?", "--max-new-tokens", "8") == answer(made, TEXT)


def test_standard_input(call, made, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    call("add", "-", "--model", str(made), "--name", "typed in")
    assert call("ask", "typed in", "Where?", "--max-new-tokens", "8") == answer(made, TEXT)


def test_list_shows_what_can_be_used(call, made, place):
    assert call("list") == f"{place / 'shelf'} has no documents; longreach library add DOCUMENT --model MODEL puts some there\n"
    call("add", "story.txt", "other story.md", "--model", str(made))
    (path,) = (each for each in (place / "shelf").glob("*.json") if json.loads(each.read_text())["name"] == "story")
    edit(path, format=2)
    shown = call("list")
    assert re.search(r"other story +28 +0\.0\d MB +tiny", shown)
    assert f"{path.stem}: its manifest has format 2" in shown
    usable, foreign = json.loads(call("list", "--json"))[::-1]
    assert (usable["name"], usable["usable"], usable["why_not"], usable["model"]) == ("other story", True, None, str(made))
    assert (foreign["id"], foreign["usable"]) == (path.stem, False)


def test_gc_and_remove_say_what_they_freed(call, made, place):
    call("add", "story.txt", "other story.md", "--model", str(made))
    assert call("gc") == "nothing to remove\n"
    (path,) = (each for each in (place / "shelf").glob("*.json") if json.loads(each.read_text())["name"] == "story")
    before = time.time() - 3 * 86400
    os.utime(path, (before, before))
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.stem}.*"))
    freed = f"{size / 1e6:.2f} MB"
    dry = call("gc", "--older-than", "2d", "--dry-run")
    assert dry == f"would remove story (not used for that long): {freed}\n{freed} would be freed\n"
    assert call("gc", "--older-than", "2d") == f"removed story (not used for that long): {freed}\n{freed} freed\n"
    assert call("gc", "--max-bytes", "10GiB") == "nothing to remove\n"
    assert call("remove", "other story").startswith("removed other story: 0.0")
    assert list((place / "shelf").iterdir()) == []


def test_another_folder(call, made, place):
    call("add", "story.txt", "--model", str(made), "--library", "elsewhere")
    assert Library(place / "elsewhere").entries()[0].name == "story"
    assert not (place / "shelf").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "story.txt", "other story.md", "--name", "x", "--model", "nano"], "--name x is for one document, and 2 are given"),
        (["add", "-", "--model", "nano"], "give what comes from standard input a name: --name NAME"),
        (["add", "story.txt", "--model", "nano", "--to", "4k"], "--to has no effect without --method"),
        (["add", "story.txt", "--model", "nano", "--method", "yarm"], "unknown method 'yarm'"),
        (["add", "none.txt", "--model", "nano"], "cannot read none.txt: No such file or directory"),
        (["add", "story.txt", "--model", "./none"], "no such folder: ./none"),
        (["add", "story.txt", "--model", "nano", "--library", "story.txt/x"], "--library story.txt/x cannot be written to"),
        (["ask", "story", "Where?"], "has no document story; longreach library list shows what there is"),
        (["ask", "story", "Where?", "--top-k", "3"], "top_k has no effect on greedy decoding"),
        (["remove", "story"], "has no document story"),
        (["gc", "--older-than", "soon"], "--older-than soon: write a time above 0, as 30d, 12h or 90m"),
        (["gc", "--max-bytes", "much"], "--max-bytes much: write a size, as 10GiB or 500MB"),
    ],
)
def test_what_cannot_be_done_is_one_line(place, arguments, says, capsys):
    assert run(["library", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not (place / "shelf").exists()


def test_documents_of_different_models_or_methods_stand_in_no_prompt(call, made, place, capsys):
    write_folder(place / "second", eos_token_id=None)
    call("add", "story.txt", "--model", str(made))
    call("add", "other story.md", "--model", str(made), "--method", "yarn:factor=2")
    call("add", "other story.md", "--model", "second", "--name", "third")
    for other, why in (
        ("other story", "under no method and other story under yarn:factor=2"),
        ("third", f"and third by {place / 'second'}"),
    ):
        assert run(["library", "ask", "story", other, "Where?"]) == 2
        assert f"{why}; ask about one at a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reading", "writing", "loading", "says"),
    [
        (10.0, 0.0, 1.0, "question 2 on"),  # 10 + 2 * 1 < 2 * 10
        (10.0, 8.0, 1.0, "question 3 on"),  # 18 + 2 * 1 is 20 for two as for reading twice: it pays from the next on
        (1.0, 0.5, 0.9, "question 16 on"),
        (1.0, 0.1, 1.0, "does not pay"),
    ],
)
def test_where_it_begins_to_pay(reading, writing, loading, says):
    known = Manifest(
        name="", model="", options={}, weights="", tokenizer="", method="", chat=False, tokens=1, ids="", text="", length=1,
        reading=reading, writing=writing, bytes=1, added="", longreach="",
    )  # fmt: skip
    assert says in _pays(known, loading)


def test_sizes():
    assert [parse_bytes(text) for text in ("0", "10GiB", "1.5 kb", "500MB", "2TiB", "ten", "10 G", "-1")] == [
        0, 10 * 2**30, 1500, 500_000_000, 2 * 2**40, None, None, None,
    ]  # fmt: skip
