"""Draws the page docs/workflows.md: what reading workflows find in texts of many windows, and what it costs.

`docs/evidence/workflows/MODEL.jsonl` holds the rows that benchmarks/workflows.py wrote: one for each answer.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_TITLES = {
    "needle": "one fact",
    "needles": "four facts",
    "threads": "a thread, forwards",
    "threads:direction=backward": "backwards",
}
_HEAD = """# What reading workflows find

Written by `make docs` from rows in `docs/evidence/workflows/`, which `python benchmarks/workflows.py` writes. A text of so many windows
is read, and a question is answered about it: one fact (`needle`), four facts of one key (`needles:each=4`), and threads
(`threads:steps=3`), in which a value is the key of the next line, which stands later (*forwards*) or earlier (*backwards*) in the text.
Cells are mean scores; behind the comma stands the length of the text in windows. Calls and tokens (read and written) are what a question
took on average.

*perfect* is a scripted model that knows all that is in its window, and nothing else: what is missed, the workflow itself loses. In a thread
it can tell which line matters only when it sees the line before. SmolLM2 has 135M parameters: it shows what a small real model makes of it.
"""


def row_key(row: Row) -> str:
    """What tells a row from others: an answer is asked for once."""
    return json.dumps([row[name] for name in ("model", "window", "windows", "task", "passage", "question", "workflow")])


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of files, in the order of their names; of those that say the same, the last."""
    lines = [line for path in sorted(paths) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({row_key(row): row for row in map(json.loads, lines)}.values())


def workflows_page(rows: Sequence[Row]) -> str:
    """The page."""
    return f"{_HEAD}\n{workflows_table(rows)}\n"


def workflows_table(rows: Sequence[Row]) -> str:
    """For each model: mean scores by workflow, task and number of windows; and what a question of the longest texts took."""
    parts = []
    for model, window in sorted({(row["model"], row["window"]) for row in rows}):
        of = [row for row in rows if (row["model"], row["window"]) == (model, window)]
        columns = sorted({(row["task"], row["windows"]) for row in of}, key=_place)
        counts = {len({(row["passage"], row["question"]) for row in of if (row["task"], row["windows"]) == column}) for column in columns}
        asked = str(*counts) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        heads = [f"{_TITLES.get(task, task)}, {windows}" for task, windows in columns]
        costs = [f"calls, {windows}" for windows in sorted({row["windows"] for row in of})] + ["tokens at the most windows"]
        lines = [
            f"## {model}, windows of {window} tokens, {asked} questions a cell\n",
            "| " + " | ".join(["workflow", *heads, *costs]) + " |",
            "| --- " * (1 + len(heads) + len(costs)) + "|",
        ]
        for spec in dict.fromkeys(row["workflow"] for row in of):
            lines.append(f"| {' | '.join([f'`{spec}`', *_cells_of([row for row in of if row['workflow'] == spec], columns, of)])} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _place(column: tuple[str, int]) -> tuple[int, str, int]:
    """Tasks in the order of their titles, others behind them."""
    task, windows = column
    known = list(_TITLES)
    return (known.index(task) if task in known else len(known), task, windows)


def _cells_of(rows: Sequence[Row], columns: Sequence[tuple[str, int]], all_rows: Sequence[Row]) -> list[str]:
    """Scores by task and windows, calls by windows, and tokens at the most; empty where nothing was asked."""

    def mean(found: list[float], form: str) -> str:
        return format(sum(found) / len(found), form) if found else ""

    lengths = sorted({row["windows"] for row in all_rows})
    scores = []
    for column in columns:
        cell = [row["score"] for row in rows if (row["task"], row["windows"]) == column]
        asked = len({(row["passage"], row["question"]) for row in all_rows if (row["task"], row["windows"]) == column})
        scores.append(mean(cell, ".2f") + (f" ({len(cell)} question{'s' * (len(cell) > 1)})" if 0 < len(cell) < asked else ""))
    calls = [mean([row["calls"] for row in rows if row["windows"] == length], ",.0f") for length in lengths]
    return [*scores, *calls, mean([row["tokens"] for row in rows if row["windows"] == lengths[-1]], ",.0f")]
