"""Draws the page docs/tasks.md: what each task of `longreach eval` shows of small models, inside their windows and beyond.

`docs/evidence/tasks/MODEL.json` holds what benchmarks/tasks.py wrote: the marks of every task at some lengths, under some methods.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HEAD = """# What each task shows

Every task of `longreach eval` that makes its own passages, asked of small models. A task says something of a model only where its mark
can be told from guessing; `~` marks what cannot. Marks have 95 % intervals, over few passages: they show what a task is good for, and
rank nothing. *chance* is what guessing gets. Under *as it is* the model reads without a method. A cell without a number: the task has no
passage so short, or not enough text.
"""
_WORDS = {
    "literal": "Literal: find what stands in the text word for word",
    "latent": "Latent: what a text means, and what follows from facts that stand apart",
    "ordering": "Ordering: what stands where, and what follows what",
    "aggregation": "Aggregation: much of a text at once",
}


def tasks_page(folder: Path) -> str:
    """The page, from the files of all models in a folder."""
    files = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    parts = [_HEAD, *(_summary(file) for file in files)]
    for ability, words in _WORDS.items():
        columns = [(file, column) for file in files for column in file["columns"]]
        heads = [f"{file['model']}, {column['length']:,} tokens, {_under(column)}" for file, column in columns]
        lines = [f"| {' | '.join(['task', 'marked by', 'chance', *heads])} |", f"| {'--- | ' * (len(heads) + 3)}".rstrip()]
        lines += [_line(task, metric, columns) for task, metric in _rows(files, ability)]
        parts.append("\n".join(["", f"## {words}", "", *lines, ""]))
    parts.append("\nWritten by `make docs` from the files in `docs/evidence/tasks/`, which `python benchmarks/tasks.py` writes.\n")
    return "".join(parts)


def _rows(files: Sequence[Mapping[str, Any]], ability: str) -> list[tuple[str, str]]:
    found = {(mark["task"], mark["metric"]) for file in files for column in file["columns"] for mark in column["marks"]}
    of = {task for file in files for task, its in file["abilities"].items() if its == ability}
    return sorted(each for each in found if each[0] in of)


def _line(task: str, metric: str, columns: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    marks = [next((mark for mark in column["marks"] if (mark["task"], mark["metric"]) == (task, metric)), None) for _, column in columns]
    chance = max(mark["chance"] for mark in marks if mark is not None)
    return f"| {' | '.join([f'`{task}`', metric, f'{chance:.2f}', *map(_cell, marks)])} |"


def _cell(mark: Mapping[str, Any] | None) -> str:
    if mark is None or not mark["n"]:
        return "-"
    return f"{'' if mark['low'] > mark['chance'] else '~'}{mark['mean']:.2f} ({mark['low']:.2f} to {mark['high']:.2f})"


def _under(column: Mapping[str, Any]) -> str:
    return f"under `{column['method']}`" if column["method"] else "as it is"


def _summary(file: Mapping[str, Any]) -> str:
    """How many tasks can tell the model from guessing in each column."""
    told = []
    for column in file["columns"]:
        marked = {mark["task"]: False for mark in column["marks"] if mark["n"]}
        for mark in column["marks"]:
            marked[mark["task"]] = marked.get(mark["task"], False) or mark["low"] > mark["chance"]
        told.append(f"{sum(marked.values())} of {len(marked)} at {column['length']:,} tokens, {_under(column)}")
    return f"\n`{file['model']}` ({file['passages']} passages a task and length) is above chance in {'; '.join(told)}.\n"
