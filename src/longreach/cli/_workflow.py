"""What the verbs share that ask a model many times: which model it is, what they work on, and what a run may cost."""

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import Loading, seconds_of
from longreach.cli._panels import ENDPOINT, FILES, LIMITS
from longreach.cli._places import check_writable
from longreach.core.errors import InputError, LongreachError
from longreach.core.lengths import parse_length
from longreach.core.spec import check_spec
from longreach.workflows.budget import RunBudget
from longreach.workflows.spans import Document

if TYPE_CHECKING:
    from longreach.endpoint.base import ChatModel
    from longreach.workflows.run import WorkflowRun

AskedModel = Annotated[str | None, typer.Argument(help="A folder, a GGUF file, a hub id, or nano; nothing with --endpoint.")]
EndpointURL = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Ask an OpenAI-compatible endpoint; LONGREACH_API_KEY or OPENAI_API_KEY is its key.", rich_help_panel=ENDPOINT
    ),
]
ServedModel = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The endpoint's or the recording's model. [default: the only one]", rich_help_panel=ENDPOINT),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="Requests to the endpoint at a time. [default: 8]", rich_help_panel=ENDPOINT)]
Silence = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="The endpoint may be silent for so long, as 90s or 20m. [default: 5m]", rich_help_panel=ENDPOINT),
]
UnderMethod = Annotated[
    str | None,
    typer.Option(metavar="SPEC", help="Ask under a method, as yarn:factor=8, instead of one that longreach applies to the checkpoint."),
]
Window = Annotated[
    str | None,
    typer.Option(metavar="LENGTH", help="Tokens that prompt and answer may have together. [default: what the model reaches or states]"),
]
BudgetCalls = Annotated[
    int | None, typer.Option(metavar="N", help="Refuse a run that may take more calls of the model.", rich_help_panel=LIMITS)
]
BudgetTokens = Annotated[
    str | None,
    typer.Option(metavar="LENGTH", help="Refuse a run that may take more tokens, read and written together.", rich_help_panel=LIMITS),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Keep every call here, and ask nothing twice: a stopped run goes on when run again.", rich_help_panel=FILES
    ),
]
Replay = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Do a recorded run again from its --record file alone; no model is needed.", rich_help_panel=FILES),
]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write what was read and what the answer goes back to: a page, or JSON (.json).", rich_help_panel=FILES
    ),
]


@dataclass(frozen=True, kw_only=True)
class AskedPlace:
    """Where the model is that a verb asks, or the recording that stands for it.

    Raises: InputError for what cannot be meant there, before anything is loaded.
    """

    model: str | None
    endpoint: str | None
    served_model: str | None
    concurrency: int | None
    timeout: str | None
    method: str | None
    window: str | None
    record: Path | None
    replay: Path | None
    loading: Loading

    def __post_init__(self) -> None:
        given = sum(place is not None for place in (self.model, self.endpoint, self.replay))
        if given != 1:
            places = "a model, or an endpoint with --endpoint URL, or a recording with --replay FILE"
            raise InputError(f"name {places}{', and only one of them' if given else ''}")
        local: dict[str, object] = {"--method": self.method, **dict.fromkeys(self.loading.given(), True)}
        remote: dict[str, object] = {"--concurrency": self.concurrency, "--timeout": self.timeout}
        where, useless = "without --endpoint", remote | {"--served-model": self.served_model}
        if self.endpoint is not None:
            where, useless = "with --endpoint", local
        elif self.replay is not None:
            where, useless = "with --replay", {"--record": self.record} | remote | local
        for option, value in useless.items():
            if value is not None:
                raise InputError(f"{option} has no effect {where}")
        if self.method:
            check_spec(self.method)
        _ = self.tokens, silence(self.timeout)

    @property
    def tokens(self) -> int | None:
        """Of the window, where it is given."""
        return None if self.window is None else parse_length(self.window)


def silence(timeout: str | None) -> dict[str, Any]:
    """What an endpoint is told of its --timeout. Raises: InputError for what is no time."""
    return {} if timeout is None else {"timeout": float(seconds_of("--timeout", timeout))}


@contextmanager
def chat_model(place: AskedPlace) -> "Iterator[ChatModel]":
    """The model, ready to be asked. Raises: InputError; CheckpointError; UnsupportedError for a method that does not work on it."""
    if place.replay is not None:
        from longreach.endpoint.recording import Recording

        yield Recording(place.replay, model=place.served_model)
        return
    if place.endpoint is not None:
        from longreach.endpoint.client import Endpoint

        more: dict[str, Any] = {} if place.concurrency is None else {"concurrency": place.concurrency}
        with Endpoint(place.endpoint, place.served_model, **more, **silence(place.timeout)) as endpoint:
            yield endpoint
        return
    with _local_model(place, place.model or "") as local:
        yield local


@contextmanager
def _local_model(place: AskedPlace, name: str) -> "Iterator[ChatModel]":
    from longreach.conversation.local import LocalModel
    from longreach.conversation.window import stack_for, window_for
    from longreach.engine.apply import apply

    loaded = place.loading.load(name, apply_method=place.method is None, decoder_only=True)
    stack = stack_for(loaded.model, place.method, place.tokens)
    window, concerns = window_for(loaded.model, name, stack, place.tokens)
    for concern in concerns:
        typer.echo(f"warning: {concern}", err=True)
    with apply(loaded.model, stack, warn=False):
        yield LocalModel(loaded.model, loaded.tokenizer, window=window)


def budget_of(calls: int | None, tokens: str | None) -> RunBudget:
    """What a run may cost at most. Raises: InputError."""
    return RunBudget(calls=calls, tokens=None if tokens is None else parse_length(tokens))


def show_estimate(run: "WorkflowRun[Any]", place: AskedPlace) -> None:
    """Tell on stderr what a run costs at most, before it costs anything; a replay costs nothing."""
    if place.replay is not None:
        typer.echo(f"replayed from {place.replay}; no model is asked", err=True)
        return
    counted = "" if run.ledger.exact else " (estimates: the endpoint does not count tokens)"
    typer.echo(f"at most {run.estimate}{counted}", err=True)


def check_ledger(path: Path | None) -> None:
    """Raise InputError for a ledger that cannot be written."""
    if path is not None and path.suffix not in (".html", ".json"):
        raise InputError(f"--ledger {path}: give a name that ends in .html or .json")
    if path is not None:
        check_writable(path.parent, "--ledger")


def write_ledger(path: Path | None, run: "WorkflowRun[Any]", text: str) -> None:
    """Write the ledger of a run, as a page or as JSON, where that is asked for. Args: text: the answer, or what was written.

    Raises: LongreachError where nothing can be written there.
    """
    from longreach.core.files import write_text
    from longreach.reports.ledger_page import ledger_page

    if path is None:
        return
    found = run.ledger.to_dict()
    command = shlex.join(("longreach", *sys.argv[1:]))
    title = "What was read" if found["documents"] else "What was written"
    page = ledger_page(found, text, title=title, command=command)
    whole = page if path.suffix == ".html" else json.dumps({"answer": text, "ledger": found}, ensure_ascii=False, indent=2) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, whole)
    except OSError as error:
        raise LongreachError(f"cannot write {path}: {error.strerror}") from None


def documents_of(files: Sequence[str]) -> list[Document]:
    """Text files as documents, `-` for standard input; each is called by its file's name, or by its path where two have one name.

    Raises: InputError for one that cannot be read, is no UTF-8 text or is empty, and for two that are the same.
    """
    if len(set(files)) < len(files):
        raise InputError("a document is given twice")
    names = [Path(file).name if file != "-" else "standard input" for file in files]
    called = [name if names.count(name) == 1 else file for name, file in zip(names, files, strict=True)]
    return [Document(name=name, text=_text(file)) for name, file in zip(called, files, strict=True)]


def _text(file: str) -> str:
    name = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start})") from None
