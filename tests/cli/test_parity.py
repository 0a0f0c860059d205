import json

import pytest

from longreach.cli.main import run

QUICK = ("eval", "tiny", "--tasks", "needle", "--lengths", "256", "--limit", "3", "--text", "book.txt")


@pytest.fixture(autouse=True)
def folder(tiny_folder):
    assert run([*QUICK, "--rows", "a.jsonl"]) == 0
    return tiny_folder


def test_two_runs_under_different_methods(capsys):
    assert run([*QUICK, "--rows", "b.jsonl", "--method", "yarn:factor=2"]) == 0
    capsys.readouterr()
    assert run(["parity", "a.jsonl", "b.jsonl", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["settings"] == {"method": [['""'], ['"yarn:factor=2"']]}
    assert [cell["shared"] for cell in found["cells"]] == [3, 3]
    assert run(["parity", "a.jsonl", "b.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert 'method: "" in A, "yarn:factor=2" in B' in shown
    assert "may be noise" in shown


def test_other_seeds_ask_other_questions(capsys):
    assert run([*QUICK, "--rows", "b.jsonl", "--seed", "1"]) == 0
    capsys.readouterr()
    assert run(["parity", "a.jsonl", "b.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "seed: 0 in A, 1 in B" in shown
    assert "3 / 3" in shown


@pytest.mark.parametrize(
    ("second", "message"),
    [("none.jsonl", "no such file: none.jsonl"), ("book.txt", "is not a row"), ("empty.jsonl", "has no rows of text tasks")],
)
def test_what_is_no_run_is_one_line(folder, second, message, capsys):
    (folder / "empty.jsonl").write_text("")
    assert run(["parity", "a.jsonl", second]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
