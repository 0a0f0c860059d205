"""`longreach stretch`: the method that lets a model reach a length, proven and saved."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    seconds_of,
)
from longreach.cli._places import check_texts, check_writable
from longreach.cli._tables import new_table, show
from longreach.cli._tuning import Tuner, check_places, save_proven
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_names, split_specs

if TYPE_CHECKING:
    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.reports.report import Saved
    from longreach.stretching.stretch import Outcome

_AUTO = "auto"  # whatever suggests itself


@loads_model
def stretch(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
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
            help="What to try, as yarn:factor=8; more after a space or ;, or repeated. A bare name: settings that fit. [default: auto]",
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Save the stretched checkpoint here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Save the best method even if it is not good enough.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the report. [default: OUT-report, or longreach-results/report]")
    ] = None,
    tune: Annotated[
        int | None,
        typer.Option(metavar="STEPS", help="Then train the model under the best positions method, as longreach tune does, and compare."),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Text files to train on, UTF-8: books, code.")] = None,
    sampler: Annotated[str | None, typer.Option(metavar="SPEC", help="How positions are drawn in training. [default: pose]")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate. [default: 2e-4 for adapters, 2e-5 in full]")] = None,
    full: Annotated[bool, typer.Option("--full", help="Train every weight instead of adapters.")] = False,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the training's checkpoints. [default: longreach-results/runs/MODEL-TOKENS]")
    ] = None,
    finalists: Annotated[
        int,
        typer.Option(min=1, help="Methods measured on more than one text; where there are more to try, the others are screened on one."),
    ] = 3,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time for all the measuring, as 5m; what it does not suffice for is named. [default: no limit]"),
    ] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Texts, each read in full. [default: until it is decided, 2 to 4]")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Questions about each text, for each depth and length. [default: until it is decided, 5 at most]"),
    ] = None,
    depths: Depths = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the questions. [default: 0]")] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL.jsonl]")
    ] = None,
    trained_window: TrainedWindow = None,
    chunk_size: ChunkSize = None,
    batch_size: BatchSize = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, for programs.")] = False,
) -> None:
    """Find the method that lets a model reach a length, and save the model.

    Measures what could work and chooses by a rule that the report states. No training is needed; with --tune the model is also trained, and
    what that makes is measured beside the rest. Exits with 1 where --out is given and nothing is good enough to save. A stopped run goes on
    when run again.
    """
    seconds = None if budget is None else seconds_of("--budget", budget)
    target, trained = parse_length(to), None if trained_window is None else parse_length(trained_window)
    folder = report or (Path("longreach-results/report") if out is None else out.with_name(f"{out.name}-report"))
    name = loading.name(model)
    _check_tuning(tune, data, trained, {"--data": data, "--sampler": sampler, "--lr": lr, "--full": full or None, "--work": work})
    _check_places(out, folder, force)
    wanted = split_specs(methods or [_AUTO])
    check_names(spec for spec in wanted if spec != _AUTO)
    check_texts(text)
    given = parse_depths(depths)

    from longreach.cli._progress import BarProgress
    from longreach.data.stdlib import stdlib_text
    from longreach.evaluation.text import read_texts
    from longreach.stretching.stretch import check
    from longreach.stretching.stretch import stretch as run

    options: dict[str, Any] = {
        "text": read_texts(text) if text else stdlib_text("held-out"), "purpose": purpose, "finalists": finalists, "windows": windows,
        "samples": samples, "depths": given, "seed": seed, "chunk_size": chunk_size, "batch_size": batch_size,
    }  # fmt: skip
    check(**options)
    make_tuner = None
    if tune is not None and data is not None:
        place = work or Path("longreach-results/runs", f"{name.replace('/', '--')}-{target}")
        settings = {"target": target, "steps": tune, "sampler": sampler, "lr": lr, "full": full}
        make_tuner = _tuner(settings, data, place, out, options["text"])
    store = open_rows(rows, name)
    load = partial(  # a method that the checkpoint was saved with would stand in the way of others
        loading.load, model, dtype=loading.dtype or ("float32" if full else None), apply_method=False, decoder_only=True
    )
    loaded = load()
    tuner = make_tuner(loaded) if make_tuner else None
    try:
        with BarProgress() as progress:
            outcome = run(
                *loaded, name=name, to=target, methods=wanted, seconds=seconds, tuner=tuner, trained_window=trained, rows=store,
                progress=progress, **options,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = f"What was measured is kept in {store.path}" + (f" and the training in {tuner.folder}" if tuner else "")
        typer.echo(f"{kept}; the same command goes on from there.", err=True)
        raise
    best = outcome.choice.best
    if out is not None and tuner is not None and best is not None and not best.tuned:
        loaded = load()  # the weights as they were before the training
    source = ", ".join(map(str, text or [])) or "this Python's documentation and held-out source"
    told = {
        "command": _command(context),
        "loading": {"model": model, **loading.arguments()},
        "text": source,
        "tuning": tuner.result if tuner else None,
    }
    made, saved, files = _write(outcome, loaded, told, folder, out, force)
    if as_json:
        print(json.dumps(made, allow_nan=False))
    else:
        _show(made, saved, out, [*files, store.path])
    if out is not None and saved.folder is None:
        raise typer.Exit(1)


def _check_tuning(steps: int | None, data: Path | None, trained_window: int | None, options: dict[str, Any]) -> None:
    """An option without effect is an error."""
    if steps is None:
        if given := [option for option, value in options.items() if value is not None]:
            raise InputError(f"{given[0]} has no effect without --tune STEPS")
        return
    if steps < 1:
        raise InputError(f"--tune {steps}: give at least 1 step")
    if data is None:
        raise InputError("--tune needs text to train on; give --data FOLDER")
    if trained_window is not None:
        raise InputError("--trained-window has no effect on --tune, which goes by the checkpoint; correct its config (longreach doctor)")


def _tuner(settings: dict[str, Any], data: Path, folder: Path, out: Path | None, held_out: str) -> "partial[Tuner]":
    """What will train a checkpoint. Raises: InputError for settings, text or places that cannot be."""
    from longreach.data.sources import read_folder
    from longreach.training.plan import TuneConfig

    check_writable(folder, "--work")
    if out is not None:
        check_places(out, folder)
    config = TuneConfig(**{name: value for name, value in settings.items() if value is not None})
    return partial(Tuner, texts=read_folder(data), config=config, folder=folder, held_out=held_out)


def _write(
    outcome: "Outcome", loaded: "Checkpoint", told: dict[str, Any], folder: Path, out: Path | None, force: bool
) -> tuple[dict[str, Any], "Saved", list[Path]]:
    """Write the report, save the model where that is asked for and allowed, and write down what became of it."""
    from longreach.reports.report import Saved, report, write

    made = report(outcome, saved=Saved(), **told)
    write(made, folder)  # before saving, which may fail
    saved = _save(outcome, loaded, out, force)
    made |= {"saved": asdict(saved)}
    return made, saved, write(made, folder)


def _check_places(out: Path | None, report: Path, force: bool) -> None:
    """Refuse before hours of measuring what would fail after them."""
    if out is not None:
        from longreach.checkpoints.places import place_of

        place = place_of(out)
        check_writable(place, "--out")
        if report.resolve().is_relative_to(place):
            raise InputError(f"--report {report} lies in --out, which holds the checkpoint alone; choose another folder")
    elif force:
        raise InputError("--force has no effect without --out")
    check_writable(report, "--report")


def _save(outcome: "Outcome", loaded: "Checkpoint", out: Path | None, force: bool) -> "Saved":
    """Save the best method where that was asked for and is allowed, prove an export, and say how servers run it."""
    from longreach.checkpoints.servers import server_settings
    from longreach.core.errors import UnsupportedError
    from longreach.engine.rope_config import rope_of
    from longreach.reports.report import Saved

    best = outcome.choice.best
    if best is None or not (outcome.choice.good_enough or force):
        return Saved()
    servers = None
    config = loaded.model.config
    if best.method and not best.tuned:  # servers are told how to run the model that is already there
        try:
            servers = server_settings(best.method, rope_of(config), outcome.target, config=config)
        except UnsupportedError:  # positions of another kind: no server can be told of them
            servers = None
    if out is None:
        return Saved(servers=servers)
    return Saved(servers=servers, **save_proven(loaded, out, method=best.method, target=outcome.target, original=loaded.model))


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
    from rich.console import Console

    from longreach.reports.words import NEEDLES_COLUMN, RISE_COLUMN, found

    full = sorted((one for one in data["methods"] if not one["screened"]), key=lambda one: not one["best"])
    asked = any(one["retrieval"] for one in full)
    table = new_table("method", *([NEEDLES_COLUMN] if asked else []), RISE_COLUMN, "tokens/s", "memory")
    for one in full:
        needles = [found(one) or "-"] if asked else []
        spent = [f"{one['tokens_per_s']:.0f}", f"{one['peak_bytes'] / 1e6:.0f} MB" if one["memory_compares"] else "-"]
        table.add_row(_label(one), *needles, f"{one['rise']['mean']:+.3f}", *spent, style="bold" if one["best"] else None)
    show(Console(highlight=False), table)
    for one in full:
        print(f"{_label(one)}: {one['verdict']}")
    if not all(one["memory_compares"] for one in full):
        print("Memory stands only where as many texts were read at once as under the best method.")
    _show_others(data)
    for sentence in data["tuning"]["words"] if data["tuning"] else ():
        print(sentence)
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


def _show_others(data: dict[str, Any]) -> None:
    """The methods that were not measured in full, by name."""
    screened: dict[str, list[str]] = {}
    for one in data["methods"]:
        if one["screened"]:
            screened.setdefault(one["verdict"], []).append(_label(one))
    for verdict, names in screened.items():
        why = "" if verdict == "screened out" else f": {verdict}"
        print(f"Screened on one text: {', '.join(names)}{why}.")
    if data["not_tried"]:
        print(f"Not tried, for lack of time: {', '.join(data['not_tried'])}.")
    refused: dict[str, list[str]] = {}
    for one in data["not_applicable"]:
        refused.setdefault(one["why"], []).append(_label({"label": one["method"]}))
    for why, names in refused.items():
        print(f"Not tried: {', '.join(names)}: {why}.")


def _label(one: dict[str, Any]) -> str:
    return one["label"] or "stock model"
