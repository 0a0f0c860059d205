import io

import pytest
from rich.console import Console

from longreach.cli._tables import new_table, show


def printed(width):
    table = new_table("depth", *(f"{2**n}k" for n in range(6)), title="needle")
    for depth in ("0", "0.5"):
        table.add_row(depth, *(f"{n}.00 / {depth}0" for n in range(6)))
    console = Console(file=io.StringIO(), width=width)
    show(console, table)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "parts"), [(200, 1), (60, 2), (30, 6), (10, 6)])
def test_columns_that_do_not_fit_come_below(width, parts):
    lines = printed(width)
    assert [line.split()[0] for line in lines if line.strip()].count("depth") == parts
    assert "".join(lines).count("needle") == 1
    assert all(f"{n}.00 / {depth}0" in "".join(lines) for n in range(6) for depth in ("0", "0.5")), "nothing is cut"
    assert max(map(len, lines)) <= max(width, 30)


def test_a_row_keeps_its_name():
    assert [line.split()[:2] for line in printed(30) if line.strip().startswith("0.5")] == [["0.5", f"{n}.00"] for n in range(6)]
