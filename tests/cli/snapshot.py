"""The command line as it is frozen: the help of every verb, with its arguments, options, types and defaults.

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
    """`longreach`, and each verb -> the lines of its help."""
    group: Any = typer.main.get_command(make_app())
    with group.make_context("longreach", [], resilient_parsing=True, terminal_width=100) as top:
        pages = {"longreach": group.get_help(top)}
        for name in group.list_commands(top):
            with group.commands[name].make_context(name, [], parent=top, resilient_parsing=True) as context:
                pages[name] = group.commands[name].get_help(context)
    return {name: [line.rstrip() for line in page.splitlines()] for name, page in pages.items()}


def as_text() -> str:
    """The snapshot as it stands in the file."""
    return json.dumps(snapshot(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text(), encoding="utf-8")
