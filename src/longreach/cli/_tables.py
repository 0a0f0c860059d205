"""Tables that fit the terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Column, Table


def new_table(*columns: str, title: str | None = None) -> "Table":
    """A table of numbers, whose first column says what a row is about."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def show(console: "Console", table: "Table") -> None:
    """Print a table whose cells are never cut: columns for which a line has no room come below, behind the first column again."""
    first, *others = table.columns
    width, title = console.width, table.title if isinstance(table.title, str) else None
    while others:
        fitting = _fitting(console, table, first, others)
        part = _part(table, [first, *others[:fitting]], title)
        console.width = max(width, _width(console, part))  # a single column that is too wide runs over the edge
        console.print(part, crop=False, soft_wrap=True)
        console.width = width
        others, title = others[fitting:], None


def _fitting(console: "Console", table: "Table", first: "Column", others: list["Column"]) -> int:
    """How many of the other columns fit on a line, at least one."""
    counts = range(len(others), 1, -1)
    return next((count for count in counts if _width(console, _part(table, [first, *others[:count]])) <= console.width), 1)


def _width(console: "Console", table: "Table") -> int:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def _part(table: "Table", columns: list["Column"], title: str | None = None) -> "Table":
    """The table with these of its columns only, and the rows that have something in them."""
    part = new_table(title=title)
    for column in columns:
        part.add_column(column.header, justify=column.justify, no_wrap=True)
    cells = zip(*(column.cells for column in columns), strict=True)
    for row, values in zip(table.rows, cells, strict=True):
        if any(values[1:]):
            part.add_row(*values, style=row.style, end_section=row.end_section)
    return part
