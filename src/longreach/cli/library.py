"""`longreach library`: documents that were read once, asked about as often as you like."""

import json
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.checkpoints.places import checkpoint_name, local_checkpoint
from longreach.cli._options import AS_IT_IS, Loading, MaxNewTokens, Seed, Temperature, TopK, TopP, loads_model, parse_bytes, parse_seconds
from longreach.cli._output import print_pieces
from longreach.cli._places import check_texts, check_writable
from longreach.cli._tables import new_table, show
from longreach.core.errors import CheckpointError, InputError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec
from longreach.decoding.sampling import Sampling
from longreach.library.shelf import Manifest, Volume, default_folder, find, volumes

if TYPE_CHECKING:
    from longreach.checkpoints.checkpoint import Checkpoint
    from longreach.library import Library
    from longreach.library.library import Addition

_REMEMBERED = ("revision", "adapter", "dtype", "device_map", "load_in_4bit")  # how a model is loaded again; not what may run code
Folder = Annotated[
    Path | None,
    typer.Option("--library", metavar="FOLDER", help="Where it is. [default: LONGREACH_LIBRARY, else ~/.cache/longreach/library]"),
]

library = typer.Typer(
    rich_markup_mode=None, help="Keep documents on disk as a model has read them, and ask about them without reading them again."
)


@library.command()
@loads_model
def add(
    documents: Annotated[list[str], typer.Argument(metavar="DOC", help="Text files, UTF-8; - reads standard input.")],
    model: Annotated[str, typer.Option(metavar="MODEL", help="A folder, a GGUF file, a hub id, or nano.")],
    method: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="Read under a method, as yarn:factor=8, instead of one that longreach applies to the checkpoint."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="LENGTH", help="What factor=auto reaches. [default: each document, and 1024 tokens for question and answer]"),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What to call it. [default: the file's name without its ending]")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Read plain text, also where the checkpoint has a chat template.")] = False,
    folder: Folder = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Read documents once, and keep what was read. What is there already is not read again."""
    if name is not None and len(documents) > 1:
        raise InputError(f"--name {name} is for one document, and {len(documents)} are given")
    if "-" in documents and name is None:
        raise InputError("give what comes from standard input a name: --name NAME")
    if to is not None and method is None:
        raise InputError("--to has no effect without --method")
    if method:
        check_spec(method)
    target = None if to is None else parse_length(to)
    check_texts([Path(each) for each in documents if each != "-"])
    check_writable(folder or default_folder(), "--library")

    from longreach.cli._progress import BarProgress
    from longreach.engine.apply import apply
    from longreach.library import Library

    shelves, loaded = Library(folder), loading.load(model, apply_method=method is None, decoder_only=True)
    options = _options(loading, loaded)
    chat = bool(loaded.tokenizer.chat_template) and not plain
    for document in documents:
        text, called = _text(document), name or Path(document).stem
        with apply(loaded.model, _stack(loaded, method, text, called, chat, target), warn=False):
            with BarProgress() as progress:
                added = shelves.add(*loaded, text, name=called, chat=chat, options=options, progress=progress)
            _tell_added(shelves, loaded, added, called)


@library.command()
@loads_model
def ask(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names or ids of documents.")],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="In quotes.")],
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that read them, where it has moved. [default: where it was]")
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    seed: Seed = None,
    folder: Folder = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Ask about documents, and see the answer as it is produced. Only the question is read."""
    most = None if max_new_tokens is None else parse_length(max_new_tokens)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    manifests = [find(folder or default_folder(), each).readable() for each in names]
    first = _one_reader(manifests, given=model)
    place = model or first.model
    loading.check(place)

    from longreach.cli._progress import BarProgress
    from longreach.engine.apply import apply
    from longreach.library import Library

    remembered = {option: value for option, value in first.options.items() if option not in loading.arguments()}
    loaded = loading.load(place, apply_method=False, decoder_only=True, **remembered)
    with apply(loaded.model, first.method, warn=False):
        with BarProgress() as progress:
            pieces = Library(folder).ask(
                *names, question=question, model=loaded.model, tokenizer=loaded.tokenizer, max_new_tokens=most, sampling=sampling,
                tell=_warn, progress=progress,
            )  # fmt: skip
            piece = next(pieces, "")
        print_pieces(chain([piece], pieces))


@library.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list, for programs.")] = False,
    folder: Folder = None,
) -> None:
    """List the documents, and whether they can still be used, as far as that shows without loading their models."""
    place = folder or default_folder()
    found = volumes(place)
    if as_json:
        print(json.dumps([_row(volume) for volume in found], indent=2, ensure_ascii=False))
        return
    if not found:
        print(f"{place} has no documents; longreach library add DOCUMENT --model MODEL puts some there")
        return
    from rich.console import Console

    table = new_table("document", "tokens", "on disk", "model", "method", "added", "usable")
    for volume in found:
        known = volume.manifest
        facts = [str(known.tokens), checkpoint_name(known.model), known.under, known.added[:10]] if known else ["-", "-", "-", "-"]
        table.add_row(volume.name, facts[0], _size(volume.bytes), *facts[1:], "no" if _problem(volume) else "yes")
    show(Console(highlight=False, markup=False), table)
    for volume in found:
        if why := _problem(volume):
            print(f"{volume.name}: {why}")


@library.command()
def gc(
    older_than: Annotated[str | None, typer.Option(metavar="TIME", help="Not asked about for so long, as 30d or 12h.")] = None,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="As much as may stay, as 10GiB; what was not used for the longest time goes first.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    folder: Folder = None,
) -> None:
    """Remove what is broken or half written, and what is too old or too much. Every file is read, to see whether it is whole."""
    seconds = None if older_than is None else parse_seconds(older_than)
    if older_than is not None and seconds is None:
        raise InputError(f"--older-than {older_than}: write a time above 0, as 30d, 12h or 90m")
    most = None if max_bytes is None else parse_bytes(max_bytes)
    if max_bytes is not None and most is None:
        raise InputError(f"--max-bytes {max_bytes}: write a size, as 10GiB or 500MB")

    from longreach.cli._progress import BarProgress
    from longreach.library import Library

    with BarProgress() as progress:
        removed = Library(folder).gc(older_than=seconds, max_bytes=most, dry_run=dry_run, progress=progress)
    for one in removed:
        print(f"{'would remove' if dry_run else 'removed'} {one.name} ({one.why}): {_size(one.bytes)}")
    print(f"{_size(sum(one.bytes for one in removed))} {'would be freed' if dry_run else 'freed'}" if removed else "nothing to remove")


@library.command()
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Names or ids of documents.")],
    folder: Folder = None,
) -> None:
    """Remove documents from the library. The texts themselves stay where they are."""
    for volume in [find(folder or default_folder(), name) for name in names]:
        volume.remove()
        print(f"removed {volume.name}: {_size(volume.bytes)} freed")


def _text(document: str) -> str:
    from longreach.evaluation.text import read_texts

    if document != "-":
        return read_texts([Path(document)])
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 text (byte {error.start})") from None


def _stack(loaded: "Checkpoint", method: str | None, text: str, name: str, chat: bool, target: int | None) -> Any:
    """What the document is to be read under, beside what is applied already."""
    from longreach.core.spec import stack_of
    from longreach.engine.window import stated_window
    from longreach.library.frame import frame
    from longreach.library.library import ROOM

    if method is None:
        return ()
    length = len(frame(loaded.tokenizer, chat=chat).document(text, name)) + ROOM if target is None else target
    return stack_of(method, trained_window=stated_window(loaded.model.config), target=length)


def _options(loading: Loading, loaded: "Checkpoint") -> dict[str, Any]:
    """With which arguments the same model is loaded again, also on another device."""
    given = {option: value for option, value in loading.arguments().items() if option in _REMEMBERED}
    if getattr(loaded.model.config, "quantization_config", None) is None:
        given["dtype"] = str(loaded.model.dtype).removeprefix("torch.")
    return given


def _tell_added(shelves: "Library", loaded: "Checkpoint", added: "Addition", called: str) -> None:
    known = added.manifest
    if not added.fresh:
        other = "" if known.name == called else f", as {known.name}"
        print(f"{called} is in the library already{other} ({known.tokens} tokens, added {known.added[:10]}); it was not read again")
        return
    begun = time.perf_counter()
    shelves.open(added.volume.id, model=loaded.model, tokenizer=loaded.tokenizer)
    loading = time.perf_counter() - begun
    each = known.bytes / known.tokens
    print(f"{known.name}: {known.tokens} tokens read in {known.reading:.2f} s; {_size(known.bytes)} on disk, {each:,.0f} bytes a token")
    print(f"  a question costs {loading:.2f} s to load it, against {known.reading:.2f} s to read it again: {_pays(known, loading)}")


def _pays(known: Manifest, loading: float) -> str:
    """From which question on reading, writing and loading are cheaper than reading each time."""
    saved = known.reading - loading
    if saved <= 0:
        return "keeping it does not pay"
    return f"it pays from question {int((known.reading + known.writing) / saved) + 1} on"


def _one_reader(manifests: list[Manifest], *, given: str | None) -> Manifest:
    """The first of documents that can stand in one prompt. Raises: InputError."""
    first = manifests[0]
    for other in manifests[1:]:
        if given is None and (other.model, other.options) != (first.model, first.options):
            raise InputError(f"{first.name} was read by {first.model} and {other.name} by {other.model}; ask about one at a time")
        if other.method != first.method:
            raise InputError(f"{first.name} was read under {first.under} and {other.name} under {other.under}; ask about one at a time")
    return first


def _row(volume: Volume) -> dict[str, Any]:
    """A document for programs."""
    known = {} if volume.manifest is None else asdict(volume.manifest)
    used = datetime.fromtimestamp(volume.used, UTC).isoformat(timespec="seconds")
    why = _problem(volume)
    return {"id": volume.id, **known, "name": volume.name, "bytes": volume.bytes, "used": used, "usable": not why, "why_not": why or None}


def _problem(volume: Volume) -> str:
    """Why a document is of no use, as far as it shows without loading its model; "" for nothing."""
    if volume.why_not or volume.manifest is None:
        return volume.why_not
    try:
        local_checkpoint(volume.manifest.model, volume.manifest.options.get("revision"))
    except (CheckpointError, InputError) as error:
        return f"its model is not where it was ({error}); give --model"
    return ""


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def _warn(concern: str) -> None:
    typer.echo(f"warning: {concern}", err=True)
