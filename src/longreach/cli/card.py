"""`longreach card`: how far a model can be used, ability by ability."""

import json
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli._options import AS_IT_IS, STOCK, ChunkSize, Loading, loads_model, methods_named, open_rows
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError
from longreach.core.lengths import format_length, parse_length

if TYPE_CHECKING:
    from longreach.evaluation.course import Examined

# Of every ability, what needs no more than reading: small models answer these on short texts, if any.
_TASKS = "needles:each=1,latent_needle,babi,tsort:segments=3,icll,word_counts:form=frequent"
_PASSAGES = 10
_OCTAVES = 5  # lengths, the last of them the target
_BEYOND = 4  # trained windows


@loads_model
def card(
    model: Annotated[str | None, typer.Argument(help="A folder, a GGUF file, a hub id, or nano; nothing with --gallery.")] = None,
    *,
    to: Annotated[str | None, typer.Option(metavar="LENGTH", help="Longest length: 4096, 32k. [default: 4 trained windows]")] = None,
    lengths: Annotated[
        str | None, typer.Option(metavar="LENGTHS", help="These instead: 1k:64k or 1k,3000. [default: five octaves to --to]")
    ] = None,
    tasks: Annotated[str, typer.Option(metavar="SPEC,...", help="What to ask.")] = _TASKS,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="A card under a method, too; may be repeated. stock: as the model is. [default]"),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Passages of each task and length.")] = _PASSAGES,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Real text, UTF-8; may be repeated. [default: this Python's documentation and held-out source]"),
    ] = None,
    template: Annotated[
        Literal["auto", "chat", "none"], typer.Option(help="Ask in the chat template, or as text to complete. auto: chat, where it can.")
    ] = "auto",
    gallery: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Draw these cards (JSON) on one page instead; may be repeated.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the page and its JSON. [default: longreach-results/card-MODEL]")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with the results so far. [default: longreach-results/rows/MODEL.jsonl]")
    ] = None,
    chunk_size: ChunkSize = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Measure what a model can do at each length, ability by ability, and draw it as a page. A stopped run goes on when run again."""
    if (model is None) == (gallery is None):
        raise InputError("name a MODEL, or cards to draw with --gallery FILE" + (", and not both" if model else ""))
    if gallery:
        if not out:
            raise InputError("--gallery needs --out DIR")
        loaded_cards = [card for path in gallery for card in _read(path)]
        again = ["longreach", "card", *(part for path in gallery for part in ("--gallery", str(path))), "--out", str(out)]
        _draw(loaded_cards, "Usable lengths", out, shlex.join(again))
        return
    if to and lengths:
        raise InputError("--to and --lengths both say how far; choose one")
    specs = methods_named(method)
    check_texts(text)
    target = None if to is None else parse_length(to)

    from longreach.cli._progress import BarProgress
    from longreach.engine import window
    from longreach.evaluation.abilities import as_json, cards
    from longreach.evaluation.evaluate import evaluate, parse_lengths, parse_text_tasks
    from longreach.evaluation.text import read_texts

    chosen = parse_text_tasks(tasks)
    name = loading.name(model or "")
    store = open_rows(rows, name)
    loaded = loading.load(model or "", decoder_only=True)
    steps = parse_lengths(lengths) if lengths else octaves_to(target or _BEYOND * window.window_of(loaded.model))
    options: dict[str, Any] = {
        "tasks": chosen, "lengths": steps, "passages": limit, "seed": seed, "text": read_texts(text) if text else None, "name": name,
        "chat": None if template == "auto" else template == "chat", "rows": store,
        **({} if chunk_size is None else {"chunk_size": chunk_size}),
    }  # fmt: skip
    found: list[Examined] = []
    with BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        for spec in specs:
            found.append(evaluate(loaded.model, loaded.tokenizer, method=spec, **options, progress=progress))
    made = [as_json(one) for one in cards(row for examined in found for row in examined.rows)]
    listed = [part for spec in specs if method for part in ("--method", spec or STOCK)]
    place = "FOLDER" if Path(model or "").is_dir() else model or ""  # where it lies is nobody's business who sees the page
    shown = ["longreach", "card", place, "--lengths", ",".join(map(format_length, steps)), "--tasks", tasks, *listed]
    where = out or Path("longreach-results", f"card-{name.replace('/', '--')}")
    read = ["--chunk-size", str(chunk_size)] if chunk_size else []
    _draw(made, f"How far {name} can be used", where, shlex.join([*shown, "--limit", str(limit), "--seed", str(seed), *read]))


def octaves_to(target: int) -> tuple[int, ...]:
    """Five lengths that double up to the target.

    >>> octaves_to(4096)
    (256, 512, 1024, 2048, 4096)
    """
    return tuple(max(1, target >> step) for step in reversed(range(_OCTAVES)))


def _read(path: Path) -> list[dict[str, Any]]:
    """The cards of a JSON file. Raises: InputError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cards"]
        if not all(isinstance(one["model"], str) and isinstance(one["abilities"], list) for one in found):
            raise TypeError
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no card; `longreach card MODEL` writes one (card.json)") from None
    return list(found)


def _draw(made: Sequence[dict[str, Any]], title: str, out: Path, command: str) -> None:
    from rich.console import Console

    from longreach.core.files import write_text
    from longreach.reports.card_page import card_page, name_of, usable_words

    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "card.json", json.dumps({"cards": list(made), "command": command}, allow_nan=False) + "\n")
    write_text(out / "card.html", card_page(made, title=title, commands=[command]))
    abilities = list(dict.fromkeys(one["ability"] for each in made for one in each["abilities"]))
    table = new_table("usable length", *abilities)
    for each in made:
        cells = {one["ability"]: usable_words(one) for one in each["abilities"]}
        table.add_row(name_of(each), *(cells.get(ability, "") for ability in abilities))
    show(Console(highlight=False), table)
    typer.echo(f"Page: {out / 'card.html'}")
