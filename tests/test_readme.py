"""What the README, the first page and the guides show works: commands parse, Python runs, links lead somewhere."""

import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import typer.main

from longreach.cli.main import make_app

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "src" / "longreach" / "checkpoints" / "nano"
GUIDES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("guide-*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "docs/index.md", *GUIDES)


def blocks(page, language):
    """The fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def commands(program):
    """The arguments of every call of `program` in the pages' shell blocks."""
    lines = (line for page in PAGES for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines())
    return [words[1:] for line in lines if (words := shlex.split(line, comments=True)) and words[0] == program]


@pytest.fixture(scope="module")
def group():
    return typer.main.get_command(make_app())


@pytest.mark.parametrize("arguments", commands("longreach"), ids=" ".join)
def test_every_command_parses(group, arguments):
    with group.make_context("longreach", []) as top:
        name, verb, rest = group.resolve_command(top, list(arguments))
        if hasattr(verb, "commands"):
            name, verb, rest = verb.resolve_command(top, rest)
        with verb.make_context(name, rest, parent=top):
            pass  # a wrong option or argument has raised


@pytest.mark.parametrize("arguments", commands("make"), ids=" ".join)
def test_every_target_exists(arguments):
    assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_readme_shows_commands():
    assert commands("longreach")
    assert ["demo"] in commands("make")
    assert ["test"] in commands("make")


@pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="nano is not trained yet: experiments/nano.py makes its files")
@pytest.mark.parametrize(
    ("page", "prints"),
    [
        ("README.md", [r"^ *48213$"]),
        ("docs/index.md", [r"\S"]),
        ("docs/guide-write.md", [r"^\d+ calls, .* written\n29\d\d 100\n$"]),
        ("docs/guide-memory.md", [r"^48213\n90647\n48213\n$", r"^\d+ tokens, 0 .*nothing was left out\n.*\n.*; left out: turn"]),
    ],
)
def test_the_python_runs(page, prints, tmp_path, monkeypatch, capsys):
    for name in ("CONTRIBUTING.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for code, wanted in zip(blocks(page, "python"), prints, strict=True):
        exec(compile(code, page, "exec"), {"__name__": "__main__"})  # as a program, but for what a new process would import again
        assert re.search(wanted, capsys.readouterr().out)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    folder = (ROOT / page).parent
    assert not [target for target in targets if not (folder / target).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_every_anchor_is_there(page):
    """Of links to the table of methods; the site's build finds those of its pages."""
    methods = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    anchors = re.findall(r"\]\([^)#]*methods\.md#([^)]*)\)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [anchor for anchor in anchors if f'<a id="{anchor}"></a>' not in methods]


def test_the_table_of_the_readme_is_that_of_the_rows():
    drawn = runpy.run_path(str(ROOT / "docs" / "picture.py"))
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text[text.index(drawn["BEGIN"]) + len(drawn["BEGIN"]) : text.index(drawn["END"])]
    assert shown.strip() == drawn["table"](json.loads(drawn["REPORT"].read_text(encoding="utf-8")))


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


def test_the_readme_leads_to_every_guide():
    assert all(f"]({guide})" in (ROOT / "README.md").read_text(encoding="utf-8") for guide in GUIDES)
