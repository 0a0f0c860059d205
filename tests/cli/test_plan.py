import json

import pytest

from longreach.cli.main import run
from longreach.planning import plan as planning
from longreach.planning.machine import Machine


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Nothing is timed."""
    monkeypatch.setattr(planning, "machine", lambda device, dtype: Machine(flops=1e12, reads=1e11))


def test_a_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--context", "2k", "--memory", "1GiB", "--method", "yarn:factor=auto ntk:factor=8", "--method", "snapkv:budget=128"]
    assert run(["plan", "nano", *arguments]) == 0
    out = capsys.readouterr().out
    assert "nano: 2048 tokens, batch 1, 256 new tokens; window 512 tokens" in out
    assert "Memory: 1.1 GB on cpu." in out
    ntk, snapkv = (next(line.split() for line in out.splitlines() if line.lstrip().startswith(name)) for name in ("ntk", "snapkv"))
    assert ntk[:6] == ["ntk:factor=8", "and", "1", "more", "yes", "all"]
    assert ntk[-1] == "positions"
    assert (snapkv[:3], snapkv[-1]) == (["snapkv:budget=128", "yes", "512"], "text")
    assert "ntk:factor=8 and yarn:factor=4: the same numbers." in out
    assert "can stand on what does" in out


def test_json_for_programs(capsys):
    assert run(["plan", "nano", "--context", "512", "--batch", "4", "--memory", "2GB", "--method", "quantised", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["context"], found["batch"], found["memory"]) == ("nano", 512, 4, 2 * 10**9)
    (row,) = found["methods"]
    assert (row["spec"], row["fits"], row["lost"]) == ("quantised", True, ["precision"])
    assert row["reading"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--context", "0"], "not a length: '0'; a length is a whole number of tokens, at least 1"),
        (["--context", "1k", "--memory", "much"], "--memory much is no size; write 24GiB, 24GB or 512MiB"),
        (["--context", "1k", "--memory", "1MiB"], "the weights of nano alone take"),
        (["--context", "1k", "--method", "yarm"], "unknown method 'yarm'; did you mean yarn"),
        (["--context", "1k", "--method", "pyramid"], "it divides a budget of tokens among layers or heads, and there is none"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(arguments, says, capsys):
    assert run(["plan", "nano", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_folder_that_is_not_there(capsys):
    assert run(["plan", "./nowhere/at/all", "--context", "1k"]) == 2
    assert capsys.readouterr().err == "error: no such folder: ./nowhere/at/all\n"
