import json
import re

import pytest

from longreach.cli.main import run
from tests.evaluation.preferences.simulated import entries, simulated, written


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to work in, with the annotations of `good` and `long`, both against `base`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name, settings in (("good", {"quality": 0.8}), ("long", {"effect": 1.5, "extra": 0.8})):
        written(tmp_path / f"{name}.json", entries(simulated(1, 200, name=name, **settings)))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_a_table_for_people(capsys):
    assert run(["debias", "long.json", "good.json", "--tie", "wildbench:300"]) == 0
    out = capsys.readouterr().out
    assert "against base" in out
    number = r" +[\d.]+ ± [\d.]+"
    assert re.search(rf"good{number}{number} +[\d.]+ to [\d.]+ +[\d.]+ +[\d.]+ +[\d.]+% +[+-]\d\.\d\d +\d+ / \d+ +200", out)
    assert out.index("good") < out.index("long ")
    assert "The model knows length and difficulty estimated from another file." in out
    assert re.search(r"reward +K = 300 +now ties", out)
    assert re.search(r"long +\+\d+\.\d +\+\d+\.\d +0 +\d+ +0 +0 +0 +\d+", out)  # whole judgements: no slight win


@pytest.mark.usefixtures("folder")
def test_json_for_programs(capsys):
    assert run(["debias", "long.json", "--json", "--tie", "wildbench"]) == 0
    found = json.loads(capsys.readouterr().out)
    (row,) = found["systems"]
    assert (found["baseline"], found["tie_threshold"], row["system"], row["judged"], row["model"]) == ("base", 500, "long", 200, "length")
    assert row["controlled"]["rate"]["low"] < row["controlled"]["rate"]["mean"] < row["win_rate"]["mean"]
    assert row["controlled"]["sem"] is None
    assert row["outcomes"]["reward"] == row["outcomes_with_rule"]["reward"]
    assert run(["debias", "long.json", "--json", "--baseline", "long"]) == 0
    (swapped,) = json.loads(capsys.readouterr().out)["systems"]
    assert swapped["controlled"]["rate"]["mean"] == pytest.approx(100 - row["controlled"]["rate"]["mean"])


def test_difficulties_and_gamed_baselines_from_files(folder, capsys):
    (folder / "d.csv").write_text("index,instruction_difficulty\n" + "".join(f"{n},{n % 5}\n" for n in range(200)), encoding="utf-8")
    lines = [f"{n % 200},{n % 5},{(n % 7 - 3) / 2},{0.5 - (n % 7 - 3) / 20}\n" for n in range(400)]
    header = "index,instruction_difficulty,std_delta_len,preference\n"
    (folder / "gamed.csv").write_text(header + "".join(lines), encoding="utf-8")
    found = []
    for option in (["--difficulty", "d.csv"], ["--gamed", "gamed.csv"]):
        assert run(["debias", "long.json", *option, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out)["systems"][0])
    assert [one["model"] for one in found] == [
        "length and given difficulty", "length and given difficulty, effect of length held by gamed baselines"
    ]  # fmt: skip
    assert found[1]["controlled"]["length"] < found[0]["controlled"]["length"]
    assert run(["debias", "long.json", "--difficulty", "d.csv", "--gamed", "gamed.csv"]) == 2
    assert "--gamed brings difficulties of its own" in capsys.readouterr().err


def test_what_cannot_be_told_is_said_below_the_table(folder, capsys):
    made = entries(simulated(1, 40, quality=0.5))
    for entry in made:
        entry["output_2"] = entry["output_1"]
    written(folder / "same.json", made)
    assert run(["debias", "same.json"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"tested +[\d.]+ ± [\d.]+ +\d+ / \d+ +40", out)
    assert "tested: the difference of lengths is the same everywhere, so its effect cannot be told; the win rate is as annotated." in out


def test_wrong_files_end_with_one_line(folder, capsys):
    written(folder / "few.json", entries(simulated(1, 19)))
    (folder / "text.json").write_text("no json", encoding="utf-8")
    for arguments, told in (
        (["few.json"], "few.json: 19 comparisons have a preference; at least 20 are needed"),
        (["text.json"], "text.json: not JSON"),
        (["none.json"], "none.json: No such file"),
        (["long.json", "long.json"], "long.json is given twice"),
        (["long.json", "--tie", "500"], "write wildbench:500"),
        (["long.json", "--baseline", "other"], "other is not in it"),
    ):
        assert run(["debias", *arguments]) == 2
        err = capsys.readouterr().err
        assert told in err
        assert err.count("\n") == 1
