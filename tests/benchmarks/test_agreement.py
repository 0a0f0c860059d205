"""The script that runs authors' own code: what it takes out of a clone, the rows that it writes, and the page that is drawn of them."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longreach.core import registry
from longreach.core.errors import InputError
from longreach.reports.agreement import AGREEMENT, Agreement, agreement_page, read_agreement

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "docs" / "evidence" / "agreement"
TOY = """
import nowhere
from nowhere.else_ import *

STEP = 3
nowhere.patched = True

def doubled(x: nowhere.Tensor) -> "Unknown":
    return helper(x) * 2

def helper(x):
    return x + STEP

class Layer(nn.Module):
    @nowhere.decorated
    def forward(self, x):
        def inner(y):
            return imported(y) - STEP
        return inner(x)

raise RuntimeError("the file was run as a whole")
"""


@pytest.fixture
def theirs(monkeypatch):
    """The modules behind the script."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("_agreement.base")


@pytest.fixture
def clones(tmp_path):
    """A folder with a clone of authors whose newest commit no longer has the file, and the commit that has it."""
    place = tmp_path / "clones" / "someone+toy"
    place.mkdir(parents=True)

    def git(*words):
        identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
        return subprocess.run(["git", "-C", place, *identity, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (place / "toy.py").write_text(TOY, encoding="utf-8")
    git("add", "toy.py")
    git("commit", "-qm", "first")
    commit = git("rev-parse", "HEAD")
    git("rm", "-q", "toy.py")
    git("commit", "-qm", "second")
    return place.parent, commit


def source_of(theirs, clones, **changes):
    return theirs.Source(**{"clone": clones[0] / "someone+toy", "commit": clones[1], "file": "toy.py", **changes})


def test_definitions_are_taken_out_of_a_file_at_a_commit_and_nothing_else_is_run(theirs, clones):
    source = source_of(theirs, clones)
    assert source.load("doubled").doubled(1) == 8
    assert source.load("doubled", STEP=5).doubled(1) == 12, "what is given stands for what the file defines"
    assert source.load("doubled", helper=lambda x: x).doubled(4) == 8
    assert source.load("Layer.forward", imported=lambda y: y * 10).forward(None, 2) == 17
    assert source.load("Layer.forward.inner", imported=lambda y: y).inner(2) == -1
    loaded = source.load("doubled")
    loaded.globals["STEP"] = 0
    assert loaded.doubled(1) == 2


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({}, "trebled", "does not define trebled"),
        ({}, "Layer.backward", "does not define Layer.backward"),
        ({"file": "other.py"}, "doubled", "has no other.py at commit"),
        ({"commit": "0" * 40}, "doubled", "clone it whole, with all commits"),
    ],
)
def test_what_a_clone_does_not_have_is_said(theirs, clones, changes, name, words):
    with pytest.raises(InputError, match=words):
        source_of(theirs, clones, **changes).load(name)


@pytest.fixture
def call(theirs, clones, monkeypatch, tmp_path):
    """Run the script on comparisons of toys (name, how far off ours is, why); returns its rows by method."""
    script = importlib.import_module("agreement")

    def toy(name, off, differs, repository="someone/toy"):
        def run(source):
            doubled = source.load("doubled").doubled(torch.arange(5.0))
            return doubled, doubled + off

        return theirs.Comparison(
            method=name, setting=f"{name}:factor=2", repository=repository, commit=clones[1], file="toy.py", compared="numbers | a line",
            inputs="0 to 4", differs=differs, rounding=1e-6, run=run,
        )  # fmt: skip

    def run(*toys, options=()):
        monkeypatch.setattr(script, "comparisons", lambda: [toy(*each) for each in toys])
        monkeypatch.setattr(sys, "argv", ["agreement.py", "--clones", str(clones[0]), "--out", str(tmp_path / "rows"), *options])
        script.main()
        return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in (tmp_path / "rows").iterdir()}

    return run


def test_rows_say_how_far_apart_both_are(call, tmp_path):
    rows = call(("yarn", 0, ""), ("yarn", 0.5, "ours is more"), ("linear", 1e-6, ""))
    assert [(row["difference"], row["same"]) for row in rows["yarn"]] == [(0, True), (0.5, False)]
    assert rows["linear"][0]["same"] is True, "rounding is no difference"
    assert set(rows["yarn"][0]) == set(AGREEMENT)
    assert rows["yarn"][0]["largest"] == 14

    again = call(("yarn", 0, ""), ("linear", 0.25, "ours is more"), options=("--only", "linear"))
    assert again["yarn"] == rows["yarn"], "rows of others are left alone"
    assert [row["difference"] for row in again["linear"]] == [0.25]

    page = agreement_page(read_agreement(tmp_path / "rows"), ["yarn", "linear", "ntk"])
    assert "3 comparisons of 2 methods: 1 are the same but for rounding, 2 differ." in page
    link = f"someone/toy [toy.py](https://github.com/someone/toy/blob/{again['yarn'][0]['commit']}/toy.py)"
    assert f"| `yarn:factor=2` | {link} | numbers \\| a line | 0 to 4 | 0 of 14 |\n" in page
    assert "| 0.5 of 14 | ours is more |" in page
    assert "Not looked at yet: `ntk`." in page


@pytest.mark.parametrize(
    ("toys", "options", "words"),
    [
        ([("yarn", 0.5, "")], (), "agreement: yarn:factor=2: different, but its comparison does not say why it differs"),
        ([("yarn", 0, "ours is more")], (), "agreement: yarn:factor=2: the same, but its comparison says why it differs"),
        ([("yarn", torch.zeros(2, 5), "")], (), "agreement: yarn: the authors' code gives (5,), ours (2, 5)"),
        ([("yarn", float("nan"), "ours is none")], (), "agreement: yarn: not all numbers are finite"),
        ([("yarn", 0, "", "other/code")], (), "agreement: no clone: git clone https://github.com/other/code "),
        ([("yarn", 0, "")], ("--only", "linear"), "agreement: --only linear: it is not compared; choose from yarn"),
    ],
)
def test_what_is_unexplained_or_missing_gets_a_line_and_no_rows(call, capsys, tmp_path, toys, options, words):
    with pytest.raises(SystemExit) as stopped:
        call(*toys, options=options)
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "rows").exists()


def test_reasons_stand_on_the_page():
    row = dict.fromkeys(AGREEMENT, "") | {"method": "yarn", "difference": 0.0, "largest": 1.0, "same": True}
    page = agreement_page(Agreement(rows=[row], reasons={"ntk": "no code"}), ["yarn", "ntk"])
    assert "| `ntk` | no code |" in page
    assert "Not looked at yet" not in page
    assert agreement_page(Agreement(), []).endswith("No rows are recorded.\n")


def test_every_recorded_row_is_of_a_method_and_of_a_comparison_that_stand(theirs):
    recorded, names = read_agreement(RECORDED), set(registry.names())
    assert {row["method"] for row in recorded.rows} <= names
    assert set(recorded.reasons) <= names
    assert not set(recorded.reasons) & {row["method"] for row in recorded.rows}
    for row in recorded.rows:
        assert {part.partition(":")[0] for part in row["setting"].split("+")} <= names
        assert row["same"] is not bool(row["differs"]), f"{row['setting']}: what differs has a reason"
    stated = ("method", "setting", "repository", "commit", "file", "compared", "inputs", "differs")
    kept = {tuple(row[name] for name in stated) for row in recorded.rows}
    assert kept == {tuple(getattr(one, name) for name in stated) for one in theirs.comparisons()}, "run benchmarks/agreement.py"
