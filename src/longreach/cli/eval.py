"""`longreach eval`: what a model can do with texts of any length."""

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli._asked import (
    Budget,
    MoreTokens,
    RecordCalls,
    ServedName,
    TokenizerOf,
    check_place,
    check_unit,
    left_out,
    open_endpoint,
    tokenizer_of,
    unanswered,
)
from longreach.cli._options import AS_IT_IS, ChunkSize, Loading, loads_model, methods_named, open_rows, seconds_of
from longreach.cli._panels import FILES, JUDGE, PASSAGES, SPEED, WORKFLOW
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.cli._workflow import Concurrency, EndpointURL, Silence
from longreach.core.errors import InputError
from longreach.core.lengths import format_length, parse_length

if TYPE_CHECKING:
    from longreach.evaluation.course import Examined
    from longreach.evaluation.marks import Mark


@loads_model
def eval(  # noqa: A001 - a verb is called as its module
    model: Annotated[str | None, typer.Argument(help="A folder, a GGUF file, a hub id, or nano; nothing with --endpoint.")] = None,
    *,
    tasks: Annotated[str, typer.Option(metavar="SPEC,...", help="What to ask: needle,tsort; see longreach methods --kind task.")],
    lengths: Annotated[
        str, typer.Option(metavar="LENGTHS", help="Of prompt and answer: 1k:64k (doubled from the first to the last) or 1k,3000.")
    ],
    method: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="Evaluate under a method; may be repeated. stock: as the model is. [default]")
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC",
            help="Have a workflow read passages, as rag; see longreach methods --kind reading.",
            rich_help_panel=WORKFLOW,
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="Tokens that prompt and answer of a workflow's call may have. [default: what the model reaches or states]",
            rich_help_panel=WORKFLOW,
        ),
    ] = None,
    more_tokens: MoreTokens = None,
    limit: Annotated[
        int, typer.Option(min=1, help="Passages of each task and length, if a file has so many.", rich_help_panel=PASSAGES)
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.", rich_help_panel=PASSAGES)] = 0,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]",
            rich_help_panel=PASSAGES,
        ),
    ] = None,
    truncate: Annotated[
        Literal["left", "middle", "right"] | None,
        typer.Option(
            help="Where texts of a benchmark's file are cut if they are too long. [default: they are refused]", rich_help_panel=PASSAGES
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Have a model behind an endpoint mark answers in free words, too.", rich_help_panel=JUDGE),
    ] = None,
    judge_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The judge. [default: the only model that its endpoint serves]", rich_help_panel=JUDGE),
    ] = None,
    unit: Annotated[
        Literal["tokens", "characters"],
        typer.Option(help="What lengths count; in characters all tokenizers get the same passages.", rich_help_panel=PASSAGES),
    ] = "tokens",
    template: Annotated[
        Literal["auto", "chat", "none"],
        typer.Option(help="Ask in the chat template, or as text to complete. auto: chat, where it can.", rich_help_panel=PASSAGES),
    ] = "auto",
    endpoint: EndpointURL = None,
    served_model: ServedName = None,
    tokenizer: TokenizerOf = None,
    concurrency: Concurrency = None,
    timeout: Silence = None,
    record: RecordCalls = None,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL.jsonl]", rich_help_panel=FILES
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Spread the questions over N processes, or over ray:N workers of a Ray cluster.", rich_help_panel=SPEED
        ),
    ] = None,
    budget: Budget = None,
    chunk_size: ChunkSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Ask questions about passages of several lengths, and mark the answers. A stopped run goes on when run again."""
    specs, by = methods_named(method), _workflow(workflow, window, more_tokens, template)
    check_texts(text)
    remote = {
        "--served-model": served_model, "--tokenizer": tokenizer, "--concurrency": concurrency, "--timeout": timeout,
        "--record": record,
    }  # fmt: skip
    check_place(
        model, endpoint, remote, {"--method": method, "--chunk-size": chunk_size, "--workers": workers, "--budget": budget}, loading
    )
    if more_tokens is not None and not endpoint and not workflow:
        raise InputError("--more-tokens has no effect without --endpoint or --workflow")
    check_unit(endpoint, unit, tokenizer)
    if judge_model and not judge:
        raise InputError("--judge-model has no effect without --judge")
    if budget and workers:
        raise InputError("--budget and --workers exclude each other")
    until = None if budget is None else time.monotonic() + seconds_of("--budget", budget)
    if judge and workers:
        raise InputError("--judge and --workers exclude each other")

    from longreach.cli._progress import BarProgress
    from longreach.evaluation.evaluate import evaluate, evaluate_endpoint, parse_lengths, parse_text_tasks
    from longreach.evaluation.spreading import Workers, spread
    from longreach.evaluation.text import read_texts

    chosen, steps = parse_text_tasks(tasks), parse_lengths(lengths)
    if text and not any(task.needs_text for task in chosen):
        raise InputError(f"--text has no effect on {' and '.join(task.name() for task in chosen)}")
    if truncate and all(task.sized for task in chosen):
        raise InputError(f"--truncate has no effect on {' and '.join(task.name() for task in chosen)}, whose passages have any length")
    if judge and not any(task.free for task in chosen):
        raise InputError(f"--judge has no effect on {' and '.join(task.name() for task in chosen)}, which ask for no free words")
    common: dict[str, Any] = {
        "tasks": chosen, "lengths": steps, "passages": limit, "seed": seed, "text": read_texts(text) if text else None,
        "truncate": truncate, "judge": open_endpoint(judge, judge_model) if judge else None, **by,
    }  # fmt: skip
    found: list[Examined] = []
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        if endpoint:
            of = tokenizer_of(tokenizer, loading)
            asked = open_endpoint(endpoint, served_model, concurrency=concurrency, record=record, timeout=timeout)
            name = asked.name
            store = open_rows(rows, name)
            with BarProgress() as progress:
                options: dict[str, Any] = {"tokenizer": of, "chat": template != "none"}
                found.append(evaluate_endpoint(asked, **common, **options, rows=store, progress=progress))
        else:
            name = loading.name(model or "")
            store = open_rows(rows, name)
            options = {"unit": unit, "name": name, "chat": None if template == "auto" else template == "chat"}
            options |= common if chunk_size is None else {**common, "chunk_size": chunk_size}
            if workers is not None:
                where = {"name": model, **asdict(loading), "decoder_only": True}
                spread(Workers.parse(workers), where, options, specs, store.path or Path())
                store = open_rows(store.path, name)
            loaded = loading.load(model or "", decoder_only=True)
            with BarProgress() as progress:
                for number, spec in enumerate(specs):
                    left = None if until is None else (until - time.monotonic()) / (len(specs) - number)
                    found.append(
                        evaluate(loaded.model, loaded.tokenizer, method=spec, **options, seconds=left, rows=store, progress=progress)
                    )
    _report(found, name, by["workflow"].spec if workflow else "", unit, as_json, str(store.path))


def _workflow(workflow: str | None, window: str | None, more_tokens: int | None, template: str) -> dict[str, Any]:
    """The arguments of `evaluate` that say how a workflow reads, if one does. Raises: SpecError; InputError."""
    from longreach.workflows.base import reading_workflow

    given: dict[str, Any] = {} if more_tokens is None else {"more_tokens": more_tokens}
    if workflow is None:
        if window is not None:
            raise InputError("--window has no effect without --workflow")
        return given
    if template != "auto":
        raise InputError("--template has no effect with --workflow, which asks in the chat template where there is one")
    return given | {"workflow": reading_workflow(workflow), "window": None if window is None else parse_length(window)}


def _report(found: Sequence["Examined"], name: str, workflow: str, unit: str, as_json: bool, path: str) -> None:
    from longreach.evaluation.marks import marks

    of_all = [mark for examined in found for mark in marks(examined.rows)]
    impossible = {f"{task} at {length}": why for examined in found for (task, length), why in examined.impossible.items()}
    if as_json:
        listed = [{**asdict(mark), "interval": list(mark.interval), "above_chance": mark.above_chance} for mark in of_all]
        missing = {f"{task} at {length}": count for examined in found for (task, length), count in examined.left_out.items()}
        told = {
            "model": name, "workflow": workflow, "unit": unit, "rows_file": path, "marks": listed, "impossible": impossible,
            "left_out": missing,
        }  # fmt: skip
        print(json.dumps(told, allow_nan=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for spec in dict.fromkeys(mark.method for mark in of_all):
        of = [mark for mark in of_all if mark.method == spec]
        how = f"{f' under {spec}' if spec else ''}{f', read by {workflow}' if workflow else ''}"
        console.print(f"{name}{how}, lengths in {unit}", soft_wrap=True)
        show(console, _table(of))
    if any(not mark.above_chance for mark in of_all):
        console.print("~ cannot be told from guessing. Intervals (95 %) are in --json.", soft_wrap=True)
    if shortened := {
        (row.task, row.length, row.settings["passage"]): row.settings["truncated"]
        for examined in found for row in examined.rows if row.settings.get("truncated")
    }:  # fmt: skip
        texts = "1 text was" if len(shortened) == 1 else f"{len(shortened)} texts were"
        console.print(f"{texts} cut, by {sum(shortened.values())} {unit} in all.", soft_wrap=True)
    if failed := unanswered(found):
        console.print(failed, soft_wrap=True)
    for why in impossible.values():
        console.print(f"{why}.", soft_wrap=True)
    if late := left_out(found):
        console.print(late, soft_wrap=True)
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
