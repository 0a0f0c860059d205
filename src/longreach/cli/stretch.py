"""`longreach stretch`: the method that lets a model reach a length, proven and saved."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import longreach
from longreach.cli._options import model_name, open_rows, parse_depths, parse_seconds
from longreach.cli._places import check_writable
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length

if TYPE_CHECKING:
    from longreach.evaluation.report import Saved
    from longreach.evaluation.stretch import Outcome
    from longreach.models.checkpoint import Checkpoint


def stretch(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder, a hub id, or nano.")],
    to: Annotated[str, typer.Option(metavar="LENGTH", help="Tokens to reach: 4096, 32k, 1M.")],
    purpose: Annotated[
        Literal["recall", "streaming"],
        typer.Option(
            "--for", help="recall: any part of the text can be asked about. streaming: the model reads on and on, and may forget."
        ),
    ] = "recall",
    methods: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="What to try, as yarn:factor=8; repeat it or separate by ;. A bare name: settings that fit. [default: auto]",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the stretched checkpoint here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Save the best method even if it is not good enough.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="For the report. [default: OUT-report, or longreach-report]")] = None,
    finalists: Annotated[int, typer.Option(help="Methods measured in full, where there are more to try.")] = 3,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time to spend, more or less, as 5m; what is not tried then is named. [default: no limit]"),
    ] = None,
    windows: Annotated[int | None, typer.Option(help="Windows of text. [default: 8, or fewer where the text is short]")] = None,
    samples: Annotated[int | None, typer.Option(help="Prompts of each depth and length. [default: 4]")] = None,
    depths: Annotated[str | None, typer.Option(metavar="D,D,...", help="Where facts stand. [default: 0,0.25,0.5,0.75,1]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the prompts. [default: 0]")] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-rows/MODEL.jsonl]")
    ] = None,
    trained_window: Annotated[
        str | None, typer.Option(metavar="LENGTH", help="Tokens trained on, where the checkpoint does not say or is wrong.")
    ] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Tokens a forward. [default: 512]")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Inputs a forward. [default: up to 8 for small models]")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16 or auto.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Load weights that exist only as pickle.")] = False,
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Run code that the checkpoint brings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for programs.")] = False,
) -> None:
    """Find the method that lets a model reach a length, and save the model.

    Measures what could work, chooses by a rule that the report states, and needs no training. Exits with 1 where --out is given and nothing
    is good enough to save. A stopped run goes on when run again.
    """
    seconds = None if budget is None else parse_seconds(budget)
    if budget is not None and seconds is None:
        raise InputError(f"--budget {budget}: write a time, as 90s, 20m or 2h")
    target, trained = parse_length(to), None if trained_window is None else parse_length(trained_window)
    folder = report or (Path("longreach-report") if out is None else out.with_name(f"{out.name}-report"))
    _check_places(out, folder, force)

    from longreach.cli._progress import BarProgress
    from longreach.data.stdlib import stdlib_text
    from longreach.evaluation.report import Saved, write
    from longreach.evaluation.report import report as make_report
    from longreach.evaluation.stretch import check
    from longreach.evaluation.stretch import stretch as run
    from longreach.evaluation.text import read_texts

    wanted = [spec for option in methods or ["auto"] for spec in option.split(";") if spec.strip()]
    options: dict[str, Any] = {
        "text": read_texts(text) if text else stdlib_text("held-out"), "purpose": purpose, "finalists": finalists, "windows": windows,
        "samples": samples, "depths": parse_depths(depths), "seed": seed, "chunk_size": chunk_size, "batch_size": batch_size,
    }  # fmt: skip
    check(**options)
    name = model_name(model)
    store = open_rows(rows, name)
    # A method that the checkpoint was saved with would stand in the way of others.
    loaded = longreach.load(
        model, dtype=dtype, device=device, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, apply_method=False,
        decoder_only=True,
    )  # fmt: skip
    try:
        with BarProgress() as progress:
            outcome = run(
                *loaded, name=name, to=target, methods=wanted, seconds=seconds, trained_window=trained, rows=store, progress=progress,
                **options,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"What was measured is kept in {store.path}; the same command goes on from there.", err=True)
        raise
    source = ", ".join(map(str, text or [])) or "this Python's documentation and held-out source"
    data = make_report(outcome, command=_command(context), text=source, saved=Saved())
    write(data, folder)  # before saving, which may fail
    saved = _save(outcome, loaded, out, force)
    files = write(data | {"saved": asdict(saved)}, folder)
    if as_json:
        print(json.dumps(data | {"saved": asdict(saved)}, allow_nan=False))
    else:
        _show(data, saved, out, [*files, store.path])
    if out is not None and saved.folder is None:
        raise typer.Exit(1)


def _check_places(out: Path | None, report: Path, force: bool) -> None:
    """Refuse before hours of measuring what would fail after them."""
    if out is not None:
        from longreach.models.checkpoint import place_of

        place = place_of(out)
        check_writable(place, "--out")
        if report.resolve().is_relative_to(place):
            raise InputError(f"--report {report} lies in --out, which holds the checkpoint alone; choose another folder")
    elif force:
        raise InputError("--force has no effect without --out")
    check_writable(report, "--report")


def _save(outcome: "Outcome", loaded: "Checkpoint", out: Path | None, force: bool) -> "Saved":
    """Save the best method where that was asked for and is allowed, prove an export, and say how servers run it."""
    from longreach.core.errors import UnsupportedError
    from longreach.evaluation.report import Saved
    from longreach.models.export import verify_export
    from longreach.models.record import read_record
    from longreach.models.rope_config import rope_of
    from longreach.models.servers import server_settings

    best = outcome.choice.best
    if best is None or not (outcome.choice.good_enough or force):
        return Saved()
    servers = None
    config = loaded.model.config
    if best.method:
        try:
            servers = server_settings(best.method, rope_of(config), outcome.target, config=config)
        except UnsupportedError:  # a rotary embedding that is scaled already: no server can be told of another scaling
            servers = None
    if out is None:
        return Saved(servers=servers)
    place = longreach.save(*loaded, out, method=best.method, target=outcome.target)
    record = read_record(place)
    exported = record is not None and record.exported
    difference = verify_export(place, loaded.model) if exported and best.method else None
    return Saved(folder=str(out), exported=exported, difference=difference, servers=servers)


def _command(context: typer.Context) -> str:
    """The command line that repeats this run, without what is at its default."""
    words = ["longreach", "stretch"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if value == parameter.default or value in (None, False, [], ()):
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            option = [parameter.opts[0]] if parameter.param_type_name == "option" else []
            words += option if one is True else [*option, str(one)]
    return shlex.join(words)


def _show(data: dict[str, Any], saved: "Saved", out: Path | None, files: Sequence[Path | None]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    recall = data["purpose"] == "recall"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for column in ("loss inside", "beyond", "above inside", *(["retrieval"] if recall else []), "tokens/s", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in data["methods"]:
        losses = [f"{one['loss_inside']['mean']:.3f}", f"{one['loss_beyond']['mean']:.3f}", f"{one['rise']['mean']:+.3f}"]
        retrieval = [f"{one['retrieval']['mean']:.2f}"] if recall else []
        spent = [f"{one['tokens_per_s']:.0f}", f"{one['peak_bytes'] / 1e6:.0f} MB"]
        style = "bold" if one["method"] == data["best"] else None
        table.add_row(one["method"] or "stock model", *losses, *retrieval, *spent, one["verdict"], style=style)
    console = Console(highlight=False)
    # Numbers are never cut: a table too wide for the terminal runs over its edge.
    console.width = max(console.width, console.measure(table, options=console.options.update(max_width=10_000)).maximum)
    console.print(table, crop=False, soft_wrap=True)
    if any(one["screened"] for one in data["methods"]):
        print("Methods that were only screened read fewer texts: their losses, speed and memory do not compare; above inside does.")
    for one in data["not_applicable"]:
        print(f"Not applicable: {one['method'] or 'stock model'}: {one['why']}")
    print(data["reason"])
    if saved.folder:
        checked = "" if saved.difference is None else f"; checked in plain transformers, logits differ by at most {saved.difference:.1g}"
        how = (
            "transformers loads it without longreach" if saved.exported else "longreach.load applies the method, which longreach.json names"
        )
        print(f"Saved: {saved.folder} ({how}{checked})")
    elif out is not None:
        print(f"Nothing was saved to {out}; --force saves the best method all the same.")
    for server, words in (saved.servers or {}).items():
        print(f"{server}: {words}")
    print(f"Report: {files[0]}\nRows: {files[-1]}")
