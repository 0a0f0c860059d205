import json

import pytest

from longreach.cli.main import run
from tests.evaluation.samples import real_text

QUICK = ("compare", "tiny", "--to", "256", "--tasks", "needle", "--lengths", "256", "--limit", "2", "--text", "book.txt")


@pytest.fixture(autouse=True)
def folder(tiny_folder):
    (tiny_folder / "data").mkdir()
    (tiny_folder / "data" / "book.txt").write_text(real_text(), encoding="utf-8")
    return tiny_folder


def test_methods_untuned(capsys):
    assert run([*QUICK, "--method", "yarn;linear", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["losses"]) == {"", "yarn:factor=2", "linear:factor=2"}
    assert found["at_chance"] == ["needle"], "a model of random weights finds nothing"
    assert run([*QUICK, "--method", "yarn"]) == 0
    assert "No method is above chance on the shortest texts" in capsys.readouterr().out


def test_methods_tuned_on_one_budget(folder, capsys):
    tuned = ("--method", "yarn sinks:num_sinks=2,window_size=60", "--data", "data", "--steps", "2", "--full", "--lr", "1e-3", "--json")
    assert run([*QUICK, *tuned]) == 0
    found = json.loads(capsys.readouterr().out)
    assert run([*QUICK, "--method", "yarn sinks:num_sinks=2,window_size=60", "--json"]) == 0
    untuned = json.loads(capsys.readouterr().out)
    assert found["losses"]["yarn:factor=2"]["mean"] < untuned["losses"]["yarn:factor=2"]["mean"], "two steps are better than none"
    for spec in ("", "sinks:num_sinks=2,window_size=60"):
        assert found["losses"][spec]["mean"] == untuned["losses"][spec]["mean"], "the base is not tuned, nor what drops tokens"
    assert (found["frozen"], untuned["frozen"]) == (["sinks:num_sinks=2,window_size=60"], [])
    runs = folder / "longreach-results/compare-tiny"
    assert (runs / "yarn-factor2").is_dir()
    assert [*runs.rglob("tokens.npz")] == [runs / "tokens.npz"], "texts are tokenized once for all methods"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the methods with --kind KIND or --method SPEC"),
        (["--kind", "positions", "--method", "yarn"], "not with both"),
        (["--kind", "task"], "no such kind: task; choose one of attention, cache, positions"),
        (["--method", "yarn", "--steps", "5"], "--steps has no effect without --data"),
        (["--method", "nothing"], "nothing"),
        (["--method", "yarn", "--tasks", "loss"], "loss asks nothing in plain text"),
        (["--method", "lm_infinite", "--data", "none", "--steps", "2"], "none is not a folder"),
        (["--to", "128", "--method", "yarn"], "nothing to compare: 128 tokens are within the trained window of 128"),
        (["--to", "100", "--kind", "positions"], "nothing to compare: 100 tokens are within the trained window of 128"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, capsys):
    assert run([*QUICK, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
