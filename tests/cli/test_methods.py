import json

import pytest

from longreach.cli.main import run
from longreach.core.catalogue import catalogue
from longreach.core.kinds import kinds


def test_the_table_shows_every_name_in_100_columns(capsys):
    assert run(["methods"]) == 0
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 100
    shown = {line.split()[0] for line in out.splitlines() if line.strip()}
    assert {entry.name for entry in catalogue()} <= shown
    assert "…" not in out


def test_json_gives_programs_the_same(capsys):
    assert run(["methods", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(entry["kind"], entry["name"]) for entry in listed] == [(entry.kind, entry.name) for entry in catalogue()]
    fields = {
        "kind",
        "name",
        "title",
        "paper",
        "summary",
        "limits",
        "cost",
        "differs",
        "arguments",
        "settings",
        "flags",
        "fit",
        "fit_arguments",
    }
    assert all(set(entry) == fields for entry in listed)


@pytest.mark.parametrize("kind", kinds())
def test_one_kind(kind, capsys):
    assert run(["methods", "--json", "--kind", kind]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == [entry.name for entry in catalogue(kind)]


def test_an_unknown_kind_is_refused(capsys):
    assert run(["methods", "--kind", "position"]) == 2
    assert capsys.readouterr().err == f"error: --kind position: no such kind; known: {', '.join(kinds())}\n"


def test_one_method_in_full(capsys):
    assert run(["methods", "yarn"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("yarn: YaRN: low frequencies interpolated")
    assert "Settings: factor, beta_fast=32, beta_slow=1, attention_factor=none\n" in out
    assert "Meaning: factor: target length" in out
    assert run(["methods", "yarnn"]) == 2
    assert capsys.readouterr().err == "error: unknown method 'yarnn'; did you mean yarn?\n"
    assert run(["methods", "generate"]) == 2
    assert "is a command without a paper" in capsys.readouterr().err
