"""`longreach write`: a text of any length, in as many calls of a model as it takes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.cli._output import print_pieces
from longreach.cli._panels import FILES
from longreach.cli._places import check_writable
from longreach.cli._workflow import (
    AskedModel,
    AskedPlace,
    BudgetCalls,
    BudgetTokens,
    Concurrency,
    EndpointURL,
    LedgerFile,
    Record,
    Replay,
    ServedModel,
    Silence,
    UnderMethod,
    Window,
    budget_of,
    chat_model,
    check_ledger,
    documents_of,
    show_estimate,
    write_ledger,
)
from longreach.core.errors import InputError
from longreach.core.progress import SILENT
from longreach.workflows.base import check_given, writing_workflow

if TYPE_CHECKING:
    from longreach.workflows.run import WritingRun


@loads_model
def write(
    model: AskedModel = None,
    *,
    task: Annotated[str, typer.Option(metavar="TEXT", help="What is to be written, and in how many words.")],
    documents: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="DOC", help="A draft or examples, as a text file, UTF-8; may be repeated; - reads standard input."),
    ] = None,
    workflow: Annotated[
        str, typer.Option(metavar="SPEC", help="How: plan_write:words=5000; see longreach methods --kind writing.")
    ] = "plan_write",
    method: UnderMethod = None,
    window: Window = None,
    endpoint: EndpointURL = None,
    served_model: ServedModel = None,
    concurrency: Concurrency = None,
    timeout: Silence = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    record: Record = None,
    replay: Replay = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the text here, too, after each of its parts.", rich_help_panel=FILES)
    ] = None,
    ledger: LedgerFile = None,
    loading: Loading = AS_IT_IS,
) -> None:
    """Write a text of any length, and see its parts as they are done. What it costs at most is said first; Ctrl-C keeps what is written."""
    if not task.strip():
        raise InputError("the task is empty")
    place = AskedPlace(
        model=model, endpoint=endpoint, served_model=served_model, concurrency=concurrency, timeout=timeout, method=method, window=window,
        record=record, replay=replay, loading=loading,
    )  # fmt: skip
    made, budget, texts = writing_workflow(workflow), budget_of(budget_calls, budget_tokens), documents_of(documents or [])
    check_given(made, len(texts))
    check_ledger(ledger)
    if out is not None:
        if out.is_dir():
            raise InputError(f"--out {out} is a folder; name a file")
        check_writable(out.parent, "--out")

    from longreach.cli._progress import BarProgress
    from longreach.workflows.run import composition

    with chat_model(place) as asked, BarProgress() as bar:
        progress = SILENT if sys.stdout.isatty() else bar  # there the text itself shows how far it is
        run = composition(
            asked, task, documents=texts, workflow=made, window=place.tokens, budget=budget, record=record, progress=progress
        )  # fmt: skip
        show_estimate(run, place)
        written: list[str] = []
        try:
            print_pieces(_kept(run, out, written))
        finally:
            typer.echo(str(run.ledger), err=True)
            write_ledger(ledger, run, "".join(written))
    if not any(call.text for call in run.ledger.calls):
        raise InputError(f"{asked.name} wrote nothing; give another model")


def _kept(run: "WritingRun", out: Path | None, written: list[str]) -> Iterator[str]:
    """The text in pieces, each of which is in the file, and in `written`, before it is shown."""
    from longreach.core.files import write_text

    for part in run.parts():
        written.append(f"\n\n{part}" if written else part)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            write_text(out, f"{''.join(written)}\n")
        yield written[-1]
