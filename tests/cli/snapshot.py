"""The command line as it is frozen: the help of every verb, and of every verb in it, with arguments, options, types and defaults.

    python tests/cli/snapshot.py

writes `snapshot.json` beside this file. The command line is what people's scripts stand on: it changes only together with that file.
"""

import json
from pathlib import Path
from typing import Any

import typer.main

from longreach.cli.main import make_app

FILE = Path(__file__).with_name("snapshot.json")


def snapshot() -> dict[str, list[str]]:
    """`longreach`, and each verb (`library add`) -> the lines of its help."""
    group: Any = typer.main.get_command(make_app())
    with group.make_context("longreach", [], resilient_parsing=True, terminal_width=100) as top:
        pages = {"longreach": group.get_help(top)} | _pages(group, top, "")
    return {name: [line.rstrip() for line in page.splitlines()] for name, page in pages.items()}


def _pages(group: Any, parent: Any, before: str) -> dict[str, str]:
    pages = {}
    for name in group.list_commands(parent):
        verb = group.commands[name]
        with verb.make_context(name, [], parent=parent, resilient_parsing=True) as context:
            pages[before + name] = verb.get_help(context)
            if hasattr(verb, "commands"):
                pages |= _pages(verb, context, f"{before}{name} ")
    return pages


def as_text() -> str:
    """The snapshot as it stands in the file."""
    return json.dumps(snapshot(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text(), encoding="utf-8")
