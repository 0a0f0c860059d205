import io

import pytest
from rich.console import Console

from longreach.cli._tables import fold, new_table, show


def printed(rows=("0", "0.5"), first="depth"):
    table = new_table(first, *(f"{2**n}k" for n in range(6)), title="needle")
    for depth in rows:
        table.add_row(depth, *(f"{n}.00 / {depth[:3]}0" for n in range(6)))
    console = Console(file=io.StringIO())
    show(console, table)
    return console.file.getvalue().splitlines()


@pytest.fixture
def columns(monkeypatch):
    return lambda width: monkeypatch.setenv("COLUMNS", str(width))


@pytest.mark.parametrize(("width", "parts"), [(200, 1), (60, 2), (30, 6), (10, 6)])
def test_columns_that_do_not_fit_come_below(columns, width, parts):
    columns(width)
    lines = printed()
    assert [line.split()[0] for line in lines if line.strip()].count("depth") == parts
    assert "".join(lines).count("needle") == 1
    assert all(f"{n}.00 / {depth}0" in "".join(lines) for n in range(6) for depth in ("0", "0.5")), "nothing is cut"
    assert max(map(len, lines)) <= max(width, 30)


def test_a_row_keeps_its_name(columns):
    columns(30)
    assert [line.split()[:2] for line in printed() if line.strip().startswith("0.5")] == [["0.5", f"{n}.00"] for n in range(6)]


def test_where_nobody_says_how_wide_a_file_has_whole_lines(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed([SPEC])
    assert [line for line in lines if SPEC in line and "5.00 / gal0" in line]


SPEC = "gali:window_size=384,local_window=96,chunk_size=64 and 1 more"


def test_a_long_name_leaves_half_of_the_line_to_numbers(columns):
    columns(60)
    lines = printed([SPEC, "yarn"], first="method")
    assert sum("method" in line for line in lines) == 3, "two columns of 12 characters beside a name of 30"
    first = next(number for number, line in enumerate(lines) if "gali" in line)
    assert [line.strip() for line in lines[first + 1 : first + 3]] == ["local_window=96,", "chunk_size=64 and 1 more"]
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("yarn:factor=4", 20, ["yarn:factor=4"]),
        ("quest:budget=16384,page_size=16", 20, ["quest:budget=16384,", "  page_size=16"]),
        ("one_word_that_is_long", 5, ["one_word_that_is_long"]),
        ("a,b,c and d", 4, ["a,b,", "  c", "  and", "  d"]),
        ("", 3, [""]),
    ],
)
def test_names_break_behind_commas_and_spaces(name, width, lines):
    assert fold(name, width).split("\n") == lines
