"""Tables that fit the terminal."""

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table

_ENDLESS = 10_000  # characters: more than any line of a table has


def new_table(*columns: str, title: str | None = None) -> "Table":
    """A table of numbers, whose first column says what a row is about."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def show(console: "Console", table: "Table") -> None:
    """Print a table whose cells are never cut: columns for which a line has no room come below, behind the first column again.

    A first column that would leave others less than half of the line is folded. In a file or a pipe a line is as long as it has to be.
    """
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _ENDLESS
    first, *others = table.columns
    names = [str(cell) for cell in first.cells]
    half = max(console.width // 2, len(str(first.header)))
    if len(others) > 1 and max(map(len, names), default=0) > half:
        names = [fold(name, half) for name in names]
    width, title = console.width, table.title if isinstance(table.title, str) else None
    while others:
        fitting = _fitting(console, table, names, others)
        part = _part(table, names, others[:fitting], title)
        console.width = max(width, _width(console, part))  # a single column that is too wide runs over the edge
        console.print(part, crop=False, soft_wrap=True)
        console.width = width
        others, title = others[fitting:], None


def fold(name: str, width: int) -> str:
    """The name in lines of at most `width`, broken behind commas and spaces; later ones are set in. A longer part stays whole."""
    lines = [""]
    for part in re.findall(r"[^, ]*[, ]|[^, ]+$", name):
        if lines[-1].strip() and len(lines[-1] + part.rstrip()) > width:
            lines.append("  ")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _fitting(console: "Console", table: "Table", names: list[str], others: list["Column"]) -> int:
    """How many of the other columns fit on a line, at least one."""
    counts = range(len(others), 1, -1)
    return next((count for count in counts if _width(console, _part(table, names, others[:count])) <= console.width), 1)


def _width(console: "Console", table: "Table") -> int:
    return console.measure(table, options=console.options.update(max_width=_ENDLESS)).maximum


def _part(table: "Table", names: list[str], columns: list["Column"], title: str | None = None) -> "Table":
    """The table with the first column, in which names stand, and these others, and the rows that have something in them."""
    part = new_table(title=title)
    for column in (table.columns[0], *columns):
        part.add_column(column.header, justify=column.justify, no_wrap=True)
    cells = zip(*(column.cells for column in columns), strict=True)
    for row, name, values in zip(table.rows, names, cells, strict=True):
        if any(values):
            part.add_row(name, *values, style=row.style, end_section=row.end_section)
    return part
