import json
import re

import pytest

from longreach.cli.main import run
from longreach.evaluation.intervals import Interval
from longreach.evaluation.usable import UsableLength
from longreach.testing.models import tiny_learned, tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

QUICK = ("--to", "512", "--windows", "2", "--samples", "1", "--depths", "0,1")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` (trained window 128) and the text book.txt."""
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def measured(capsys, *arguments):
    """The JSON of a run that works."""
    assert run(["measure", "tiny", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("folder")
def test_json_for_programs_and_rows_for_the_next_run(folder, capsys):
    result = measured(capsys, *QUICK, "--text", "book.txt")
    assert (result["model"], result["method"], result["rows_file"]) == ("tiny", "", "longreach-results/rows/tiny.jsonl")
    loss = [row for row in result["rows"] if row["task"] == "loss"]
    assert [(row["settings"]["start"], row["length"], row["n"]) for row in loss] == [(0, 64, 2), (64, 128, 2), (128, 256, 4), (256, 512, 8)]
    assert all(row["low"] < row["score"] < row["high"] for row in loss if row["n"] > 2)
    assert {row["low"] for row in loss if row["n"] == 2} == {None}, "two blocks are too few for an interval"
    cells = {(row["length"], row["depth"], row["n"]) for row in result["rows"] if row["task"] == "needle:shared=true"}
    assert cells == {(length, depth, 2) for length in (128, 256, 512) for depth in (0, 1)}, "one question of each of two texts"
    usable = result["usable"]
    assert (usable["trained_window"], usable["measured_to"], list(usable["short"])) == (128, 512, ["needle:shared=true"])
    assert usable["both"] == min(usable[part] for part in ("by_loss", "by_retrieval") if usable[part] is not None)
    lines = (folder / "longreach-results/rows" / "tiny.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 8 + 2 * 6 + 2 * 3 * 2 * 2  # blocks, those beyond the window read inside it, and questions
    assert measured(capsys, *QUICK, "--text", "book.txt") == result
    assert (folder / "longreach-results/rows" / "tiny.jsonl").read_text().splitlines() == lines


def test_a_table_of_positions_is_measured_to_its_end(folder, capsys):
    tiny_learned("gpt2", vocab_size=VOCABULARY).save_pretrained(folder / "tiny")
    assert run(["measure", "tiny", "--tasks", "loss", "--windows", "2", "--text", "book.txt"]) == 0
    assert capsys.readouterr().out.endswith("tiny cannot read beyond 128 tokens: its table of positions ends there.\n")
    assert run(["measure", "tiny", "--tasks", "loss", "--windows", "2", "--text", "book.txt", "--to", "256"]) == 2
    assert "cannot read beyond 128 tokens: its table of positions ends there; measure to 128 at most" in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_tables_for_people(capsys):
    assert run(["measure", "tiny", *QUICK, "--text", "book.txt", "--method", "linear:factor=4.0"]) == 0
    out = capsys.readouterr().out
    assert "tiny under linear:factor=4, trained window 128 tokens, float32 on cpu" in out
    assert re.search(r"257-512 +\d+\.\d{3} ± \d+\.\d{3} +[+-]\d+\.\d{3} ± \d+\.\d{3}", out)
    assert re.search(r"depth +128 +256 +512", out)
    assert re.search(r"(?m)^ *0( +(0\.00|0\.50|1\.00) / 0\.00){3}", out)
    assert re.search(r"all( +\d\.\d\d / 0\.00){3}", out)
    assert re.search(r"questions +4 +4 +4", out)
    assert "Right answers by likelihood among 10 / by generation." in out
    assert re.search(r"tokens/s +\d+ +\d+", out)
    assert re.search(r"memory +\d+ MB +\d+ MB", out)
    assert re.search(r"Usable length: .* by loss .*(by retrieval .* by both|retrieval says nothing, for inside its window .*)\.", out)
    assert out.rstrip().endswith("Rows: longreach-results/rows/tiny.jsonl")


@pytest.mark.usefixtures("folder")
def test_numbers_are_never_cut(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    assert run(["measure", "tiny", *QUICK, "--text", "book.txt", "--tasks", "needle", "--windows", "1"]) == 0
    assert "…" not in capsys.readouterr().out


@pytest.mark.usefixtures("folder")
def test_texts_are_the_users_or_the_standard_librarys(capsys):
    settings = ("--to", "256", "--tasks", "loss", "--windows", "2")
    own, again, other = (measured(capsys, *settings, *text) for text in (("--text", "book.txt"), ("--text", "book.txt"), ()))
    assert own == again
    assert own["rows"] != other["rows"]


@pytest.mark.usefixtures("folder")
def test_the_default_length_is_four_trained_windows(capsys):
    result = measured(capsys, "--tasks", "passkey", "--samples", "1", "--depths", "0.5", "--trained-window", "100")
    assert result["usable"]["measured_to"] == 400


@pytest.mark.usefixtures("folder")
def test_a_torn_row_is_reported_and_measured_again(folder, capsys):
    rows = folder / "mine.jsonl"
    settings = ("--to", "256", "--tasks", "loss", "--windows", "2", "--text", "book.txt", "--rows", "mine.jsonl")
    result = measured(capsys, *settings)
    data = rows.read_bytes()
    rows.write_bytes(data[:-30])
    assert run(["measure", "tiny", *settings, "--json"]) == 0
    out, err = capsys.readouterr()
    assert "mine.jsonl: its last line was cut off when a run was stopped, and has been taken out" in err
    assert [row["score"] for row in json.loads(out)["rows"]] == [row["score"] for row in result["rows"]]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "many"], "not a length: 'many'"),
        (
            ["--to", "64k", "--text", "book.txt", "--windows", "2"],
            r"the text is too short: it has \d+ tokens, and 2 windows of 65535 tokens",
        ),
        (["--text", "none.txt"], r"cannot read none\.txt"),
        (["--text", "binary.bin"], r"binary\.bin is not UTF-8 text \(byte 0xff at offset 2\)"),
        (["--text", "empty.txt"], r"empty\.txt holds no text"),
        (["--tasks", "los"], "unknown task 'los'; did you mean loss"),
        (["--tasks", "passkey:digits=9"], "passkey: digits=9 must be below 8"),
        (["--tasks", "passkey", "--text", "book.txt"], "text has no effect on passkey"),
        (["--tasks", "ppl"], "unknown task 'ppl'; known: .*loss, loss_inside, .*needle, .*passkey"),
        (["--method", "yarn:factor=2,log_n"], "after the comma comes log_n, which is no setting but another method; separate methods by"),
        (["--tasks", "loss", "--samples", "2"], "samples has no effect on loss"),
        (["--windows", "0"], "'--windows': Input should be greater than or equal to 1"),
        (["--samples", "-1"], "'--samples': Input should be greater than or equal to 1"),
        (["--chunk-size", "0"], "'--chunk-size': Input should be greater than or equal to 1"),
        (["--depths", "half"], "--depths half: not numbers"),
        (["--depths", "2"], "depths=2: give different numbers from 0 to 1"),
        (["--method", "yarm:factor=4"], "unknown method 'yarm'"),
        (["--rows", "book.txt"], r"book\.txt: line 1 is not a row"),
    ],
)
def test_what_does_not_fit_is_one_line(folder, arguments, says, capsys):
    (folder / "binary.bin").write_bytes(b"ab\xff\x00")
    (folder / "empty.txt").write_bytes(b"")
    assert run(["measure", "tiny", "--to", "512", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: .*{says}.*", err.splitlines()[-1])


def usable(**values):
    none = dict.fromkeys(("by_loss", "by_retrieval", "both", "risen_at", "rise", "missed_at"))
    return UsableLength(**{"trained_window": 512, "measured_to": 2048, "misses": {}, "short": {}, **none, **values})


def test_the_sentence_names_both_criteria():
    rise = {"risen_at": 2048, "rise": Interval(0.5, 0.4, 0.6)}
    misses = {"missed_at": 1024, "misses": {"needle": 0.6}}
    short = {"needle": 1.0, "passkey": 0.8}
    assert str(usable(by_loss=1024, by_retrieval=512, both=512, short=short, **rise, **misses)) == (
        "Usable length: 1024 tokens by loss (up to 2048 it is 0.500 ± 0.100 nats above that inside the trained window), "
        "512 tokens by retrieval (needle at least 0.85 and passkey at least 0.68 by likelihood, 85% of that inside the window; "
        "at 1024 needle is 0.60), 512 tokens by both."
    )
    assert str(usable(by_loss=2048)) == (
        "Usable length: at least 2048 tokens by loss (the loss has nowhere risen by more than 0.05 nats above that inside "
        "the trained window)."
    )
    assert str(usable(by_retrieval=0, short=short, missed_at=256, misses={"needle": 0.6, "passkey": 0.5})) == (
        "Usable length: no measured length by retrieval (needle at least 0.85 and passkey at least 0.68 by likelihood, "
        "85% of that inside the window; at 256 needle is 0.60 and passkey is 0.50)."
    )
    assert str(usable(by_loss=2048, both=2048, short={"needle": 0.2})) == (
        "Usable length: at least 2048 tokens by loss (the loss has nowhere risen by more than 0.05 nats above that inside "
        "the trained window), retrieval says nothing, for inside its window the model finds only 0.20 of needle."
    )


@pytest.mark.filterwarnings("always:.* cuts a prompt")
def test_what_a_loss_cannot_show_is_told(folder, capsys):
    settings = ["--tasks", "loss", "--windows", "2", "--text", "book.txt", "--to", "256", "--method", "snapkv:budget=64"]
    assert run(["measure", "tiny", *settings]) == 0
    assert "\nwarning: snapkv:budget=64 cuts a prompt once it has been read, and loss reads only" in "\n" + capsys.readouterr().err
