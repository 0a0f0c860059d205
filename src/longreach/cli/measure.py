"""`longreach measure`: how far a model reaches."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import longreach
from longreach.cli._options import (
    AS_IT_IS,
    BatchSize,
    ChunkSize,
    Depths,
    Loading,
    TrainedWindow,
    loads_model,
    open_rows,
    parse_depths,
)
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.lengths import format_length, parse_length
from longreach.core.spec import check_names, check_spec, split_specs

if TYPE_CHECKING:
    from rich.table import Table

    from longreach.evaluation.intervals import Interval
    from longreach.evaluation.rows import Row
    from longreach.evaluation.usable import Measured, UsableLength

_METRICS = ("likelihood", "generation")


@loads_model
def measure(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    to: Annotated[str | None, typer.Option(metavar="LENGTH", help="Longest length: 4096, 32k, 1M. [default: 4 trained windows]")] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    method: Annotated[str, typer.Option(metavar="SPEC", help="Measure under a method, as yarn:factor=8; factor=auto reaches --to.")] = "",
    tasks: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="What to measure; may be repeated. [default: loss, needle:shared=true; loss_inside beside them]"),
    ] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Windows of text. [default: until it is decided, 4 at most]")] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Questions of each depth and length. [default: until it is decided]")] = None,
    depths: Depths = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the prompts. [default: 0]")] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL.jsonl]")
    ] = None,
    trained_window: TrainedWindow = None,
    chunk_size: ChunkSize = None,
    batch_size: BatchSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Measure loss by position and retrieval by depth and length, and name the usable length. A stopped run goes on when run again."""
    length, trained = (None if given is None else parse_length(given) for given in (to, trained_window))
    chosen = "+".join(split_specs(tasks, "+")) if tasks else None
    if method:
        check_spec(method)
    check_names([chosen] if chosen else [], acts_on="measurement")
    check_texts(text)
    given = parse_depths(depths)

    from longreach.cli._progress import BarProgress
    from longreach.engine import window
    from longreach.evaluation.measure import check
    from longreach.evaluation.measure import measure as run

    options = _options(chosen, text, windows=windows, samples=samples, depths=given, seed=seed, batch_size=batch_size)
    options |= {} if chunk_size is None else {"chunk_size": chunk_size}
    check(**options)
    name = loading.name(model)
    store = open_rows(rows, name)
    loaded = loading.load(model, decoder_only=True)
    if chosen is None:
        options["tasks"] = None  # those that the length asks for
    with BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        found = run(*loaded, name=name, to=length, method=method, trained_window=trained, rows=store, **options, progress=progress)
    with longreach.apply(loaded.model, method):
        limit = window.position_limit(loaded.model)
    _report(found, as_json, str(store.path))
    if limit is not None and not as_json:
        typer.echo(f"{name} {window.cannot_read(limit)}.")


def _options(tasks: str | None, text: list[Path] | None, **settings: Any) -> dict[str, Any]:
    """Arguments of `check` and `measure`: the tasks, the text that they read, and other settings."""
    from longreach.evaluation.measure import TASKS, parse_tasks
    from longreach.evaluation.text import read_texts

    return {"tasks": parse_tasks(TASKS if tasks is None else tasks), "text": read_texts(text) if text else None, **settings}


def _report(found: "Measured", as_json: bool, path: str) -> None:
    from longreach.evaluation.usable import loss_rises, summarise

    usable, rows = found.usable, summarise(found)
    if as_json:
        named = {"model": rows[0].model, "method": rows[0].method, "rows_file": path}
        shown = usable.as_json()
        print(json.dumps({**named, "usable": shown, "rows": [asdict(row) for row in rows]}, allow_nan=False))
    else:
        _show(rows, loss_rises(found, found.trained_window), usable)
        print(f"Rows: {path}")


def _show(rows: Sequence["Row"], rises: dict[int, "Interval"], usable: "UsableLength") -> None:
    from rich.console import Console

    console = Console(highlight=False)
    first = rows[0]
    on = f"{first.settings['dtype']} on {first.settings['device']}"
    under = f" under {first.method}" if first.method else ""
    console.print(f"{first.model}{under}, trained window {usable.trained_window} tokens, {on}", soft_wrap=True)
    for task in dict.fromkeys(row.task for row in rows):
        cells = [row for row in rows if row.task == task]
        if cells[0].settings["metric"] == "loss":
            show(console, loss_table(task, cells, rises))
            spent = f"{cells[0].tokens_per_s:.0f} tokens/s, {_megabytes(cells[0].peak_bytes)}"
            console.print(f"{spent}.\n", soft_wrap=True)
        else:
            show(console, retrieval_table(task, cells))
            console.print("Right answers by likelihood among 10 / by generation.\n", soft_wrap=True)
    batch, memory = first.settings["batch_size"], first.settings["memory"]
    at_once = "one input at a time" if batch == 1 else f"up to {batch} inputs at once"
    console.print(f"Memory is the peak beside the model, with {at_once} ({memory}). Intervals are 95 %.", soft_wrap=True)
    console.print(str(usable), soft_wrap=True, style="bold")


def loss_table(task: str, rows: Sequence["Row"], rises: dict[int, "Interval"]) -> "Table":
    """Loss by octave, and, for the task `loss`, what it is past the window above that inside (`loss_rises`)."""
    from longreach.evaluation.rows import task_name
    from longreach.reports.words import RISE_COLUMN

    table = new_table("tokens", "loss", RISE_COLUMN, title=f"{task_name(task)}, nats a token")
    for row in rows:
        rise = rises.get(row.length) if task == "loss" else None
        beyond = "" if rise is None else f"{rise.mean:+.3f} ± {rise.high - rise.mean:.3f}"
        table.add_row(f"{row.settings['start'] + 1}-{row.length}", f"{row.score:.3f} ± {_half(row):.3f}", beyond)
    return table


def retrieval_table(task: str, rows: Sequence["Row"]) -> "Table":
    """Depth by length; each cell is the share of right answers by likelihood and by generation. Speed and memory stand below."""
    from longreach.evaluation.rows import task_name

    lengths = sorted({row.length for row in rows})
    table = new_table("depth", *(format_length(length) for length in lengths), title=task_name(task))
    for depth in sorted({row.depth for row in rows if row.depth is not None}):
        table.add_row(f"{depth:g}", *(_shares([row for row in rows if (row.depth, row.length) == (depth, length)]) for length in lengths))
    table.add_section()
    by_length = [[row for row in rows if row.length == length] for length in lengths]
    table.add_row("all", *map(_shares, by_length))
    table.add_row("questions", *(str(_questions(of)) for of in by_length))
    table.add_row("tokens/s", *(f"{min(row.tokens_per_s or 0.0 for row in of):.0f}" for of in by_length))
    table.add_row("memory", *(_megabytes(max(row.peak_bytes or 0 for row in of)) for of in by_length))
    return table


def _shares(cells: Sequence["Row"]) -> str:
    """Right answers of some cells by likelihood and by generation."""
    right = [sum((row.score or 0.0) * row.n for row in cells if row.settings["metric"] == metric) for metric in _METRICS]
    return " / ".join(f"{share / _questions(cells):.2f}" for share in right) if cells else "-"


def _questions(cells: Sequence["Row"]) -> int:
    return sum(row.n for row in cells if row.settings["metric"] == _METRICS[0])


def _half(row: "Row") -> float:
    return float("inf") if row.high is None or row.score is None else row.high - row.score


def _megabytes(count: int | None) -> str:
    return f"{(count or 0) / 1e6:.0f} MB"
