"""`longreach eval`: what a model can do with texts of any length."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli._options import AS_IT_IS, ChunkSize, Loading, loads_model, open_rows
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.lengths import format_length
from longreach.core.spec import check_spec, split_specs

if TYPE_CHECKING:
    from longreach.evaluation.course import Examined
    from longreach.evaluation.marks import Mark

_STOCK = "stock"


@loads_model
def eval(  # noqa: A001 - a verb is called as its module
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    tasks: Annotated[str, typer.Option(metavar="SPEC,...", help="What to ask: needle,tsort; see longreach methods --kind task.")],
    lengths: Annotated[
        str, typer.Option(metavar="LENGTHS", help="Of prompt and answer: 1k:64k (doubled from the first to the last) or 1k,3000.")
    ],
    method: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="Evaluate under a method; may be repeated. stock: as the model is. [default]")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Passages of each task and length.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    unit: Annotated[
        Literal["tokens", "characters"], typer.Option(help="What lengths count; in characters all tokenizers get the same passages.")
    ] = "tokens",
    template: Annotated[
        Literal["auto", "chat", "none"],
        typer.Option(help="Ask in the chat template, or as text to complete. auto: chat, where it can."),
    ] = "auto",
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL.jsonl]")
    ] = None,
    chunk_size: ChunkSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Ask questions about passages of several lengths, and mark the answers. A stopped run goes on when run again."""
    methods = split_specs(method) if method else [_STOCK]
    if len(set(methods)) < len(methods):
        raise InputError("--method: one of them is named twice")
    for spec in methods:
        if spec != _STOCK:
            check_spec(spec)
    check_texts(text)

    from longreach.cli._progress import BarProgress
    from longreach.evaluation.evaluate import evaluate, parse_lengths, parse_text_tasks
    from longreach.evaluation.text import read_texts

    chosen, steps = parse_text_tasks(tasks), parse_lengths(lengths)
    if text and not any(task.needs_text for task in chosen):
        raise InputError(f"--text has no effect on {' and '.join(task.name() for task in chosen)}")
    given = read_texts(text) if text else None
    name = loading.name(model)
    store = open_rows(rows, name)
    loaded = loading.load(model, decoder_only=True)
    options: dict[str, Any] = {
        "tasks": chosen, "lengths": steps, "passages": limit, "seed": seed, "text": given, "unit": unit, "name": name, "rows": store,
        "chat": None if template == "auto" else template == "chat", **({} if chunk_size is None else {"chunk_size": chunk_size}),
    }  # fmt: skip
    found: list[Examined] = []
    with BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        for spec in methods:
            found.append(evaluate(*loaded, method="" if spec == _STOCK else spec, **options, progress=progress))
    _report(found, name, unit, as_json, str(store.path))


def _report(found: Sequence["Examined"], name: str, unit: str, as_json: bool, path: str) -> None:
    from longreach.evaluation.marks import marks

    of_all = [mark for examined in found for mark in marks(examined.rows)]
    impossible = {f"{task} at {length}": why for examined in found for (task, length), why in examined.impossible.items()}
    if as_json:
        listed = [{**asdict(mark), "interval": list(mark.interval), "above_chance": mark.above_chance} for mark in of_all]
        print(json.dumps({"model": name, "unit": unit, "rows_file": path, "marks": listed, "impossible": impossible}, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for spec in dict.fromkeys(mark.method for mark in of_all):
        of = [mark for mark in of_all if mark.method == spec]
        console.print(f"{name}{f' under {spec}' if spec else ''}, lengths in {unit}", soft_wrap=True)
        show(console, _table(of))
    failed = sum(mark.failed for mark in of_all)
    if any(not mark.above_chance for mark in of_all):
        console.print("~ cannot be told from guessing. Intervals (95 %) are in --json.", soft_wrap=True)
    if failed:
        console.print(f"{failed} questions got no answer; run the command again to ask them again.", soft_wrap=True)
    for why in impossible.values():
        console.print(f"{why}.", soft_wrap=True)
    console.print(f"Rows: {path}", soft_wrap=True)


def _table(of: Sequence["Mark"]) -> Any:
    lengths = sorted({mark.length for mark in of})
    table = new_table("task", "metric", "chance", *map(format_length, lengths))
    for task, metric in dict.fromkeys((mark.task, mark.metric) for mark in of):
        cells = {mark.length: mark for mark in of if (mark.task, mark.metric) == (task, metric)}
        chance = max(mark.chance for mark in cells.values())
        table.add_row(task, metric, f"{chance:.2f}", *(_cell(cells.get(length)) for length in lengths))
    return table


def _cell(mark: "Mark | None") -> str:
    if mark is None or not mark.n:
        return "-"
    return f"{'' if mark.above_chance else '~'}{mark.interval.mean:.2f}"
