"""`longreach methods`: what there is to choose from."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from longreach.core import registry
from longreach.core.catalogue import Entry, Setting, catalogue
from longreach.core.errors import InputError
from longreach.core.kinds import kinds
from longreach.core.method import format_value

if TYPE_CHECKING:
    from rich.table import Table

_WIDTH = 100


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One method, in full.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, for programs.")] = False,
    kind: Annotated[str | None, typer.Option(help=f"Only methods of this kind: {', '.join(kinds())}.")] = None,
) -> None:
    """List every method with its kind, settings, limits and paper; or show one."""
    if kind is not None and kind not in kinds():
        raise InputError(f"--kind {kind}: no such kind; known: {', '.join(kinds())}")
    if name is not None and name not in registry.names(kind):
        registry.locate(name, kind)  # names the nearest ones
    entries = [entry for entry in catalogue(kind) if name in (None, entry.name)]
    if name is not None and not entries:
        raise InputError(f"{name} is a command without a paper; see longreach {name} --help")
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries], indent=2))
        return
    if name is not None:
        print("\n\n".join(_whole(entry) for entry in entries))
        return
    from rich.console import Console

    console = Console()
    console.width = min(console.width, _WIDTH)  # longer lines are hard to read
    for of in kinds():
        if chosen := [entry for entry in entries if entry.kind == of]:
            console.print(table(of, chosen))


def _whole(entry: Entry) -> str:
    """All that one method says of itself."""
    facts = {
        "Kind": entry.kind,
        "Paper": f"{entry.title}, {entry.paper}",
        "Cost": entry.cost,
        "Limits": entry.limits,
        "Differs from the paper": entry.differs,
        "Declares": ", ".join(flag.replace("_", " ") for flag in entry.flags),
        "Settings": _settings("", entry.settings).removeprefix(": "),
        "Meaning": entry.arguments if entry.settings else "",
        "Settings of its fit": _settings("", entry.fit).removeprefix(": "),
    }
    return "\n".join([f"{entry.name}: {entry.summary}", *(f"{label}: {text}" for label, text in facts.items() if text)])


def table(kind: str, entries: list[Entry]) -> "Table":
    """The methods of one kind, for people. Names are never cut."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    listing = Table(box=box.SIMPLE_HEAD, title=kind, title_justify="left", title_style="bold", expand=True)
    listing.add_column("method", no_wrap=True, style="bold")
    listing.add_column("what it does, its limits, settings and paper")
    for entry in entries:
        lines = [
            entry.summary,
            f"Limits: {entry.limits}" if entry.limits else "",
            _settings("Settings", entry.settings),
            _settings("Settings of its fit", entry.fit),
            f"Paper: {entry.paper}",
        ]
        listing.add_row(entry.name, Text("\n".join(line for line in lines if line)))
    return listing


def _settings(label: str, settings: Sequence[Setting]) -> str:
    if not settings:
        return ""
    shown = (setting.name if setting.required else f"{setting.name}={format_value(setting.default)}" for setting in settings)
    return f"{label}: {', '.join(shown)}"
