"""What `eval` and `card` share: a model behind an endpoint, and how long asking may take."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.cli._options import Loading
from longreach.cli._panels import ENDPOINT, FILES, PASSAGES, SPEED
from longreach.cli._workflow import silence
from longreach.core.errors import InputError
from longreach.core.lengths import format_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from longreach.endpoint.base import ChatModel
    from longreach.evaluation.course import Examined

ServedName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The endpoint's model. [default: the only one that it serves]", rich_help_panel=ENDPOINT),
]
TokenizerOf = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Of the endpoint's model, to count tokens: a folder, a hub id, or nano.", rich_help_panel=ENDPOINT),
]
RecordCalls = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Keep every call to the endpoint here, and ask nothing twice.", rich_help_panel=FILES),
]
MoreTokens = Annotated[
    int | None,
    typer.Option(
        min=0, help="Tokens that the answer of an endpoint or a workflow may take to think or talk. [default: 0]", rich_help_panel=PASSAGES
    ),
]

Budget = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Time for what is not measured yet, as 40m: as many of the passages as fit. [default: no limit]",
        rich_help_panel=SPEED,
    ),
]


def check_place(model: str | None, endpoint: str | None, remote: dict[str, Any], local: dict[str, Any], loading: Loading) -> None:
    """Refuse what has no effect where the model is. Args: remote, local: option -> what it was given. Raises: InputError."""
    if (model is None) == (endpoint is None):
        raise InputError("name a MODEL, or an endpoint with --endpoint URL" + (", and not both" if model else ""))
    local |= dict.fromkeys(set(loading.given()) - {"--trust-remote-code"}, True)
    where, useless = ("without --endpoint", remote) if endpoint is None else ("with --endpoint", local)
    for option, value in useless.items():
        if value is not None:
            raise InputError(f"{option} has no effect {where}")


def check_unit(endpoint: str | None, unit: str, tokenizer: str | None) -> None:
    """Refuse lengths that nobody can count. Raises: InputError."""
    if endpoint and unit == "tokens" and tokenizer is None:
        raise InputError("lengths in tokens need --tokenizer NAME, that of the endpoint's model; or count --unit characters")
    if tokenizer and unit == "characters":
        raise InputError("--tokenizer has no effect with --unit characters")


def open_endpoint(
    url: str, model: str | None, *, concurrency: int | None = None, record: Path | None = None, timeout: str | None = None
) -> "ChatModel":
    """What is asked, by way of a recording where its calls are kept. Raises: InputError."""
    from longreach.endpoint.client import Endpoint
    from longreach.endpoint.recording import Recording

    more: dict[str, Any] = {} if concurrency is None else {"concurrency": concurrency}
    asked = Endpoint(url, model, **more, **silence(timeout))
    return asked if record is None else Recording(record, asked)


def tokenizer_of(name: str | None, loading: Loading) -> "PreTrainedTokenizerBase | None":
    """The tokenizer by which lengths are counted, if one is."""
    from longreach.checkpoints.checkpoint import load_tokenizer

    return None if name is None else load_tokenizer(name, trust_remote_code=loading.trust_remote_code)


def unanswered(found: Iterable["Examined"]) -> str:
    """How many questions got no answer, and why the first did not; nothing where all did."""
    failed = [row for one in found for row in one.failed]
    if not failed:
        return ""
    questions = "1 question" if len(failed) == 1 else f"{len(failed)} questions"
    return f"{questions} got no answer; run the command again to ask again. The first: {failed[0].failed}"


def left_out(found: Iterable["Examined"]) -> str:
    """What there was no time for, in a sentence; nothing where there was time for all."""
    missing: Counter[int] = Counter()
    for one in found:
        for (_, length), count in one.left_out.items():
            missing[length] += count
    counts = ", ".join(f"{count} of {format_length(length)}" for length, count in sorted(missing.items()))
    return f"Passages that there was no time for: {counts}. Run the command again to go on." if counts else ""
