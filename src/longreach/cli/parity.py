"""`longreach parity`: why two runs came to different numbers."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.lengths import format_length

if TYPE_CHECKING:
    from longreach.evaluation.parity import Comparison, Parity


def parity(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="Rows of `longreach eval` (JSON Lines).")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="Those of another run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Say what two runs of `longreach eval` were asked differently, and, of the questions that both were asked, what they answered
    differently, and whether that is more than noise.
    """
    from longreach.evaluation.parity import parity as compare
    from longreach.evaluation.rows import Rows

    runs = []
    for path in (first, second):
        if not path.is_file():
            raise InputError(f"no such file: {path}")
        rows = [row for row in Rows(path) if "passage" in row.settings]
        if not rows:
            raise InputError(f"{path} has no rows of text tasks; `longreach eval` writes some")
        runs.append(rows)
    found = compare(*runs)
    if as_json:
        print(json.dumps(asdict(found), allow_nan=False, default=list))
        return
    _report(found, str(first), str(second))


def _report(found: "Comparison", first: str, second: str) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"A: {first}\nB: {second}\n", soft_wrap=True)
    if found.settings:
        console.print("Made differently:", soft_wrap=True)
        for name, (one, other) in found.settings.items():
            console.print(f"  {name}: {' and '.join(one) or '-'} in A, {' and '.join(other) or '-'} in B", soft_wrap=True, markup=False)
    else:
        console.print("Made alike, as far as the rows say.", soft_wrap=True)
    for path, keys in ((first, found.alone[0]), (second, found.alone[1])):
        if keys:
            listed = ", ".join(f"{task} by {metric} at {format_length(length)}" for task, metric, length in keys)
            console.print(f"Only in {path}: {listed}.", soft_wrap=True)
    if not found.cells:
        console.print("The runs have no task, metric and length in common.", soft_wrap=True)
        return
    table = new_table("task", "metric", "length", "A", "B", "same questions", "only A / B", "A better / B better", "B less A")
    for cell in found.cells:
        table.add_row(*_row(cell))
    show(console, table)
    for cell in found.cells:
        if any(cell.failed):
            task, metric, length = cell.key
            console.print(f"{task} by {metric} at {length}: {cell.failed[0]} in A and {cell.failed[1]} in B got no answer.", soft_wrap=True)
    console.print("B less A counts the same questions alone, with its 95 % interval; ~ may be noise.", soft_wrap=True)


def _row(cell: "Parity") -> tuple[str, ...]:
    task, metric, length = cell.key
    means = ["-" if mean is None else f"{mean:.3f}" for mean in cell.means]
    by = cell.difference
    difference = "-" if by is None else f"{'~' if cell.is_noise else ''}{by.mean:+.3f} ({by.low:+.3f} to {by.high:+.3f})"
    only, flips = (f"{pair[0]} / {pair[1]}" for pair in (cell.only, cell.flips))
    return (task, metric, format_length(length), *means, str(cell.shared), only, flips, difference)
