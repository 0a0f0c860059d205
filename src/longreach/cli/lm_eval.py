"""`longreach lm-eval`: tasks of lm-evaluation-harness, under any method."""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, ChunkSize, Loading, loads_model, methods_named
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.spec import STOCK

_WORDS = ("name", "alias", "sample_len", "sample_count")  # of a task's results, what is no metric


@loads_model
def lm_eval(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    *,
    tasks: Annotated[str, typer.Option(metavar="NAME,...", help="Tasks, groups or patterns of the harness, or YAML files.")],
    method: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="Run under a method; may be repeated. stock: as the model is. [default]")
    ] = None,
    include_path: Annotated[Path | None, typer.Option(metavar="FOLDER", help="YAML files of your own tasks.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task. [default: all]")] = None,
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Examples before each. [default: what the task says]")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the tokenizer's chat template.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where results go. [default: longreach-results/lm-eval/MODEL]")] = None,
    chunk_size: ChunkSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Run tasks of lm-evaluation-harness (the extra lm-eval), whole texts at any length."""
    specs = methods_named(method)
    names = list(dict.fromkeys(name for part in tasks.split(",") if (name := part.strip())))
    if not names:
        raise InputError("no task is named")

    from longreach.cli._progress import BarProgress
    from longreach.evaluation.harness.run import load_tasks, run_tasks, write_results

    chosen, name = load_tasks(names, include_path), loading.name(model)
    folder = out or Path("longreach-results", "lm-eval", name.replace("/", "--"))
    options: dict[str, Any] = {"limit": limit, "num_fewshot": num_fewshot, "chat": chat, "name": name}
    options |= {} if chunk_size is None else {"chunk_size": chunk_size}
    loaded = loading.load(model, decoder_only=True)
    runs: dict[str, tuple[Path, dict[str, Any]]] = {}
    with warnings.catch_warnings(), BarProgress() as progress:
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        for spec in specs:
            results = run_tasks(loaded.model, loaded.tokenizer, chosen, method=spec, progress=progress, **options)
            runs[spec or STOCK] = write_results(results, folder), results
    _report(name, runs, as_json)


def _report(name: str, runs: Mapping[str, tuple[Path, dict[str, Any]]], as_json: bool) -> None:
    marks = {spec: _marks(results) for spec, (_, results) in runs.items()}
    if as_json:
        listed = [
            {
                **results["config"]["longreach"],
                "file": str(path),
                "n": {task: count["effective"] for task, count in results["n-samples"].items()},
                "marks": [
                    {"task": task, "metric": metric, "value": _finite(value), "stderr": _finite(error)}
                    for (task, metric), (value, error) in marks[spec].items()
                ],
            }
            for spec, (path, results) in runs.items()
        ]
        print(json.dumps({"model": name, "runs": listed}, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    table = new_table("task", "metric", *runs)
    for key in dict.fromkeys(key for of in marks.values() for key in of):
        table.add_row(*key, *(_cell(*of.get(key, (None, None))) for of in marks.values()))
    console.print(f"{name}, tasks of lm-evaluation-harness, ± standard error", soft_wrap=True)
    show(console, table)
    for path, _ in runs.values():
        console.print(f"Results: {path}", soft_wrap=True)


def _marks(results: Mapping[str, Any]) -> dict[tuple[str, str], tuple[Any, Any]]:
    """(task or group, metric) -> its value and the standard error of that. Metrics of the filter `none` are called by their name alone."""
    found = {}
    for task, values in results["results"].items():
        for key, value in values.items():
            metric, _, of = key.partition(",")
            if key in _WORDS or metric.endswith("_stderr"):
                continue
            found[task, metric if of == "none" else key] = value, values.get(f"{metric}_stderr,{of}")
    return found


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _cell(value: Any, error: Any) -> str:
    if not isinstance(value, int | float):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if _finite(error) is None else f"{value:.4g} ± {error:.2g}"
