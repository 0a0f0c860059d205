"""`longreach fit`: finds what a method needs to know of a model."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from longreach.cli._options import AS_IT_IS, ChunkSize, Loading, loads_model, open_rows, parse_seconds
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.fitting import check_place
from longreach.core.lengths import format_length, parse_length
from longreach.core.spec import check_names


@loads_model
def fit(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="A method that is fitted, with settings of its fit, as longrope.")],
    to: Annotated[str, typer.Option(metavar="LENGTH", help="Tokens to fit it for: 4096, 32k, 1M.")],
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what was found here. [default: MODEL-METHOD-LENGTH.json]")] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="N|TIME", help="Evaluations, as 200, or time, as 20m. [default: all that the method makes]")
    ] = None,
    windows: Annotated[
        int | None,
        typer.Option(min=1, help="Windows of text to fit on; as many others are for comparing. [default: 4, or fewer for short text]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    rows: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON Lines with the evaluations so far. [default: longreach-results/rows/MODEL-fit.jsonl]"),
    ] = None,
    chunk_size: ChunkSize = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Windows a forward. [default: up to 8 for small models]")] = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written, for programs.")] = False,
) -> None:
    """Fit a method to a model by its loss on real text, and compare it on other text. A stopped fit goes on when run again.

    What was found is a JSON file, which the method takes as its setting: longreach stretch MODEL --methods METHOD:file=FILE.
    """
    target, name = parse_length(to), loading.name(model)
    evaluations, seconds = _budget(budget)
    check_names([method])
    check_texts(text)
    base = method.partition(":")[0]
    place = out or Path(f"{name.replace('/', '--')}-{base}-{format_length(target)}.json")
    check_place(place)

    from longreach.cli._progress import BarProgress
    from longreach.evaluation.text import read_texts
    from longreach.stretching.fit import check, fit_of
    from longreach.stretching.fit import fit as run

    fit_of(method)
    numbers: dict[str, Any] = {"windows": windows, "seed": seed, "chunk_size": chunk_size, "batch_size": batch_size}
    check(**numbers)
    words = read_texts(text) if text else None
    store = open_rows(rows, f"{name}-fit")
    loaded = loading.load(model, apply_method=False)
    try:
        with BarProgress() as progress:
            found = run(
                *loaded, method, to=target, text=words, evaluations=evaluations, seconds=seconds, name=name, rows=store,
                progress=progress, **numbers,
            )  # fmt: skip
    except KeyboardInterrupt:
        typer.echo(f"What was evaluated is kept in {store.path}; the same command goes on from there.", err=True)
        raise
    found.write(place)
    if as_json:
        print(json.dumps(found, allow_nan=False))
    else:
        _show(found)
        advice = "Use it" if _helps(found) else "It does not help here; to use it all the same"
        print(f"{advice}: {_use(found, model, f'{base}:file={place}')}")
        print(f"Fitted: {place}\nRows: {store.path}")


def _budget(text: str | None) -> tuple[int | None, int | None]:
    """The evaluations and the seconds that a fit may spend; None: as many as it takes."""
    seconds = None if text is None else parse_seconds(text)
    if text is None or seconds is not None:
        return None, seconds
    if re.fullmatch(r"[1-9][0-9]{0,8}", text) is None:
        raise InputError(f"--budget {text}: write evaluations as 200, or time as 90s, 20m or 2h")
    return int(text), None


def _use(found: dict[str, Any], model: str, method: str) -> str:
    """What to do with a fitted method; encoders are not stretched."""
    if found["metric"] != "loss":
        return f"longreach generate {model} --method {method} --file FILE"
    return f"longreach stretch {model} --to {format_length(found['target'])} --methods {method}"


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console

    results, metric, window, target = (found[key] for key in ("results", "metric", "trained_window", "target"))
    metric = metric.replace("_", " ")
    columns = (f"loss to {window}", f"loss from {window} to {target}") if metric == "loss" else (f"{metric} at {window}", f"at {target}")
    table = new_table("method", *columns)
    for one in results:
        style = "bold" if one is results[-1] else None
        table.add_row(one["method"] or "model as it is", f"{one['inside']:.3f}", f"{one['beyond']:.3f}", style=style)
    show(Console(highlight=False), table)
    windows = "1 window" if found["windows"] == 1 else f"{found['windows']} windows"
    print(f"Fitted with {found['evaluations']} evaluations on {windows} of text; ", end="")
    print(_gain(results) if metric == "loss" else _alignment(found, metric))


def _helps(found: dict[str, Any]) -> bool:
    """Whether the loss beyond the window is below that of every method it was compared with; other fits are not judged by loss."""
    *others, fitted = found["results"]
    return found["metric"] != "loss" or all(fitted["beyond"] < one["beyond"] for one in others)


def _gain(results: list[dict[str, Any]]) -> str:
    best = min(results[:-1], key=lambda one: one["beyond"])
    gain = best["beyond"] - results[-1]["beyond"]
    return (
        f"the losses, in nats a token, are of as many others. Beyond the window {results[-1]['method']} is {abs(gain):.3f} nats "
        f"{'better' if gain > 0 else 'worse'} than {best['method'] or 'the model as it is'}."
    )


def _alignment(found: dict[str, Any], metric: str) -> str:
    stock, aligned = found["results"][0], found["results"][-1]
    before, after = (one["beyond"] / stock["inside"] - 1 for one in (stock, aligned))
    return (
        f"the table is of as many others. At {found['target']} tokens the {metric} is {after:+.1%} off what it is at "
        f"{found['trained_window']}, and {before:+.1%} for the model as it is."
    )
