"""What every text task shows of a model: all that make their own passages, at some lengths, as it is and under methods.

    python benchmarks/tasks.py [MODEL] [--name NAME] [--lengths 448,2k] [--method SPEC]... [--passages 4] [--once]
        [--rows FILE]

Methods are asked at lengths beyond the model's window alone. FILE keeps every answer, so that a stopped run goes on. Writes
docs/evidence/tasks/NAME.json whenever a length is done; `make docs` draws docs/tasks.md from it. What stands there of nano is what the
script does by itself; of SmolLM2, what `--lengths 1k,4k --passages 2 --once` does.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import longreach
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError
from longreach.core.files import write_text
from longreach.engine.window import window_of
from longreach.evaluation.evaluate import parse_lengths, parse_text_tasks
from longreach.evaluation.marks import Mark, marks
from longreach.evaluation.rows import Rows
from longreach.evaluation.text_task import TextTask

FILES = Path(__file__).resolve().parents[1] / "docs" / "evidence" / "tasks"


def text_tasks() -> tuple[TextTask, ...]:
    """Every text task that fills passages of any length, with the settings that it has where nobody says any."""
    found: list[TextTask] = []
    for name in registry.names("task"):
        try:
            found += [task for task in parse_text_tasks(name) if task.sized]
        except LongreachError as error:
            print(f"left out: {error}", flush=True)
    return tuple(found)


def column(loaded: Any, method: str, length: int, options: argparse.Namespace, tasks: tuple[TextTask, ...]) -> dict[str, Any]:
    """The marks of all tasks at one length under one method."""
    found: list[Mark] = []
    for task in tasks:
        common = {"passages": options.passages, "name": options.name, "rows": options.rows}
        try:
            examined = longreach.evaluate(loaded.model, loaded.tokenizer, tasks=[task], lengths=[length], method=method, **common)
        except InputError as error:  # it has no passage so short
            print(f"{length:>6} left out: {error}", flush=True)
            continue
        found += marks(examined.rows)
        shown = ", ".join(f"{mark.metric} {mark.interval.mean:.2f}" for mark in marks(examined.rows))
        print(f"{length:>6} {method or 'as it is':36} {task.spec}: {shown}", flush=True)
    return {"method": method, "length": length, "marks": [as_json(mark) for mark in found]}


def as_json(mark: Mark) -> dict[str, Any]:
    """A mark as the file has it."""
    mean, low, high = (round(each, 4) for each in mark.interval)
    told = {"task": mark.task, "metric": mark.metric, "mean": mean, "low": low, "high": high}
    return told | {"chance": round(mark.chance, 4), "n": mark.n, "passages": mark.passages}


def main() -> None:
    """One model."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("model", nargs="?", default="nano")
    asked.add_argument("--name", help="what the page calls it [default: its folder's name]")
    asked.add_argument("--lengths", default="448,2k", help="[default: 448,2k]")
    asked.add_argument("--method", action="append", metavar="SPEC", help="may be repeated [default: self_extend:neighbours=128,group=5]")
    asked.add_argument("--passages", type=int, default=4, help="of each task and length [default: 4]")
    asked.add_argument("--once", action="store_true", help="ask each task at the first length alone that has room for it")
    asked.add_argument("--rows", type=Path, help="[default: tasks-NAME.jsonl]")
    options = asked.parse_args()
    options.name = options.name or Path(options.model).name
    options.rows = Rows(options.rows or Path(f"tasks-{options.name}.jsonl"))
    try:
        loaded, tasks = longreach.load(options.model), text_tasks()
        window, lengths = window_of(loaded.model), parse_lengths(options.lengths)
        methods = options.method or ["self_extend:neighbours=128,group=5"]
        told: dict[str, Any] = {
            "model": options.name, "passages": options.passages, "abilities": {task.spec: task.ability for task in tasks}, "columns": [],
        }  # fmt: skip
        for length in lengths:
            for method in ["", *(methods if length > window else ())]:
                told["columns"].append(column(loaded, method, length, options, tasks))
                FILES.mkdir(parents=True, exist_ok=True)
                write_text(FILES / f"{options.name}.json", json.dumps(told, indent=1) + "\n")
            if options.once:
                known = {mark["task"] for mark in told["columns"][-1]["marks"]}
                tasks = tuple(task for task in tasks if task.spec not in known)
    except LongreachError as error:
        print(f"tasks: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
