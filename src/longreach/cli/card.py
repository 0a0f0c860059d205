"""`longreach card`: how far a model can be used, ability by ability."""

import json
import shlex
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from longreach.cli._asked import (
    Budget,
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
from longreach.cli._panels import ENDPOINT
from longreach.cli._places import check_texts
from longreach.cli._tables import new_table, show
from longreach.cli._workflow import Concurrency, EndpointURL, Silence
from longreach.core.errors import InputError, LongreachError
from longreach.core.lengths import format_length, parse_length
from longreach.core.spec import STOCK

if TYPE_CHECKING:
    from longreach.endpoint.base import ChatModel
    from longreach.evaluation.course import Examined

# Of every ability, what needs no more than reading: small models answer these on short texts, if any.
_TASKS = "needles:each=1,latent_needle,babi,tsort:segments=3,icll,word_counts:form=frequent"
_PASSAGES = 10
_OCTAVES = 5  # lengths, the last of them the target
_BEYOND = 4  # trained windows


@loads_model
def card(
    model: Annotated[
        str | None, typer.Argument(help="A folder, a GGUF file, a hub id, or nano; nothing with --endpoint or --gallery.")
    ] = None,
    *,
    to: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="Longest length: 4096, 32k. [default: 4 trained windows; what an endpoint states]"),
    ] = None,
    lengths: Annotated[
        str | None, typer.Option(metavar="LENGTHS", help="These instead: 1k:64k or 1k,3000. [default: five octaves to --to]")
    ] = None,
    tasks: Annotated[str, typer.Option(metavar="SPEC,...", help="What to ask.")] = _TASKS,
    method: Annotated[
        list[str] | None,
        typer.Option(metavar="SPEC", help="A card under a method, too; may be repeated. stock: as the model is. [default]"),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Passages of each task and length.")] = _PASSAGES,
    budget: Budget = None,
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
    endpoint: EndpointURL = None,
    served_model: ServedName = None,
    tokenizer: TokenizerOf = None,
    unit: Annotated[
        Literal["tokens", "characters"], typer.Option(help="What lengths at an endpoint count.", rich_help_panel=ENDPOINT)
    ] = "tokens",
    more_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens that an answer may take to think or talk. [default: 0]", rich_help_panel=ENDPOINT),
    ] = None,
    concurrency: Concurrency = None,
    timeout: Silence = None,
    record: RecordCalls = None,
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
    if gallery:
        if model or endpoint:
            raise InputError("name a MODEL, or cards to draw with --gallery FILE, and not both")
        _draw_again(gallery, out)
        return
    remote = {
        "--served-model": served_model, "--tokenizer": tokenizer, "--more-tokens": more_tokens, "--concurrency": concurrency,
        "--timeout": timeout, "--record": record, "--unit": None if unit == "tokens" else unit,
    }  # fmt: skip
    if model is None and endpoint is None:
        raise InputError("name a MODEL, an endpoint with --endpoint URL, or cards to draw with --gallery FILE")
    check_place(model, endpoint, remote, {"--method": method, "--chunk-size": chunk_size, "--budget": budget}, loading)
    check_unit(endpoint, unit, tokenizer)
    if to and lengths:
        raise InputError("--to and --lengths both say how far; choose one")
    specs = methods_named(method)
    check_texts(text)
    target = None if to is None else parse_length(to)
    until = None if budget is None else time.monotonic() + seconds_of("--budget", budget)

    from longreach.cli._progress import BarProgress
    from longreach.engine import window
    from longreach.evaluation.abilities import as_json, cards
    from longreach.evaluation.evaluate import evaluate, evaluate_endpoint, parse_lengths, parse_text_tasks
    from longreach.evaluation.text import read_texts

    options: dict[str, Any] = {
        "tasks": parse_text_tasks(tasks), "passages": limit, "seed": seed, "text": read_texts(text) if text else None,
    }  # fmt: skip
    steps = parse_lengths(lengths) if lengths else () if target is None else octaves_to(target)
    found: list[Examined] = []
    with BarProgress() as progress, warnings.catch_warnings():
        warnings.showwarning = lambda message, *place, **more: typer.echo(f"warning: {message}", err=True)
        if endpoint:
            asked = open_endpoint(endpoint, served_model, concurrency=concurrency, record=record, timeout=timeout)
            name, steps = asked.name, steps or octaves_to(_stated(asked, unit))
            options |= {"tokenizer": tokenizer_of(tokenizer, loading), "chat": template != "none", "more_tokens": more_tokens or 0}
            found.append(evaluate_endpoint(asked, lengths=steps, **options, rows=open_rows(rows, name), progress=progress))
        else:
            name = loading.name(model or "")
            store = open_rows(rows, name)
            loaded = loading.load(model or "", decoder_only=True)
            steps = steps or octaves_to(_BEYOND * window.window_of(loaded.model))
            options |= {"name": name, "chat": None if template == "auto" else template == "chat", "rows": store}
            options |= {} if chunk_size is None else {"chunk_size": chunk_size}
            for number, spec in enumerate(specs):
                left = None if until is None else (until - time.monotonic()) / (len(specs) - number)
                found.append(
                    evaluate(loaded.model, loaded.tokenizer, lengths=steps, method=spec, seconds=left, **options, progress=progress)
                )
    if not any(examined.rows for examined in found):
        raise LongreachError(f"--budget {budget} does not suffice for a single passage")
    made = [as_json(one) for one in cards(row for examined in found for row in examined.rows)]
    listed = [part for spec in specs if method for part in ("--method", spec or STOCK)]
    asking = _named({"--tokenizer": tokenizer and _place(tokenizer), **{each: remote[each] for each in ("--unit", "--more-tokens")}})
    whom = ["--endpoint", "URL", "--served-model", name] if endpoint else [_place(model or "")]
    shown = ["longreach", "card", *whom, *asking, "--lengths", ",".join(map(format_length, steps)), "--tasks", tasks, *listed]
    where = out or Path("longreach-results", f"card-{name.replace('/', '--')}")
    more = _named({"--limit": limit, "--budget": budget, "--seed": seed, "--chunk-size": chunk_size})
    _draw(made, f"How far {name} can be used", where, shlex.join([*shown, *more]))
    for note in filter(None, (unanswered(found), left_out(found))):
        typer.echo(note)


def _draw_again(gallery: Sequence[Path], out: Path | None) -> None:
    """Several cards on one page. Raises: InputError."""
    if not out:
        raise InputError("--gallery needs --out DIR")
    again = ["longreach", "card", *(part for path in gallery for part in ("--gallery", str(path))), "--out", str(out)]
    _draw([card for path in gallery for card in _read(path)], "Usable lengths", out, shlex.join(again))


def _stated(asked: "ChatModel", unit: str) -> int:
    """The window that an endpoint states. Raises: InputError where it does not, and where lengths count characters."""
    if unit == "tokens" and asked.window is not None:
        return asked.window
    why = f"the endpoint does not say how long {asked.name} can read" if unit == "tokens" else "an endpoint states its window in tokens"
    raise InputError(f"{why}; give --to or --lengths")


def _place(name: str) -> str:
    """A model as a page names it: where a folder lies is nobody's business who sees the page."""
    return "FOLDER" if Path(name).is_dir() else name


def _named(options: Mapping[str, object]) -> list[str]:
    """Options as they are written, without those that were not given."""
    return [part for name, value in options.items() if value is not None for part in (name, str(value))]


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
