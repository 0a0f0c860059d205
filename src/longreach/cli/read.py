"""`longreach read`: a task on documents that are longer than any window."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.cli._workflow import (
    AskedPlace,
    BudgetCalls,
    BudgetTokens,
    Concurrency,
    EndpointURL,
    Record,
    ServedModel,
    UnderMethod,
    Window,
    budget_of,
    chat_model,
    documents_of,
    show_estimate,
)
from longreach.core.errors import InputError, LongreachError
from longreach.core.files import write_text
from longreach.workflows.base import reading_workflow
from longreach.workflows.run import ReadingRun


@loads_model
def read(
    docs: Annotated[list[str], typer.Argument(metavar="DOC...", help="What is read, UTF-8 text. -: standard input.")],
    *,
    ask: Annotated[str, typer.Option(metavar="TASK", help="What is to be done: a question, or what to summarise.")],
    workflow: Annotated[
        str, typer.Option(metavar="SPEC", help="How it is read: map_reduce, rag, chain; see longreach methods --kind reading.")
    ] = "map_reduce",
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="That reads: a folder, a GGUF file, a hub id, or nano; nothing with --endpoint.")
    ] = None,
    endpoint: EndpointURL = None,
    served_model: ServedModel = None,
    concurrency: Concurrency = None,
    method: UnderMethod = None,
    window: Window = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the answer. [default: 256, or a quarter of a window that is small]")
    ] = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    record: Record = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write what was read and what the answer goes back to: a page, or JSON (.json).")
    ] = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with answer and ledger, for programs.")] = False,
) -> None:
    """Do a task on documents of any length, in many calls, each within the window; and say what was read for it."""
    place = AskedPlace(
        model=model, endpoint=endpoint, served_model=served_model, concurrency=concurrency, method=method, window=window, loading=loading
    )
    chosen, budget, documents = reading_workflow(workflow), budget_of(budget_calls, budget_tokens), documents_of(docs)
    if not ask.strip():
        raise InputError("--ask is empty; say what is to be done")
    if ledger is not None and ledger.suffix not in (".html", ".json"):
        raise InputError(f"--ledger {ledger}: give a name that ends in .html or .json")

    from longreach.cli._progress import BarProgress

    with chat_model(place) as asked, BarProgress() as progress:
        run = ReadingRun(
            asked, documents, ask, workflow=chosen, window=place.tokens, budget=budget, answer_tokens=max_new_tokens, record=record,
            progress=progress,
        )  # fmt: skip
        show_estimate(run)
        answer = ""
        try:
            answer = run.answer()
        finally:
            if ledger is not None:
                _write_ledger(ledger, run, answer)
    typer.echo(str(run.ledger), err=True)
    print(json.dumps({"answer": answer, "ledger": run.ledger.to_dict()}, ensure_ascii=False) if as_json else answer)


def _write_ledger(path: Path, run: ReadingRun, answer: str) -> None:
    """As a page, or as JSON. Raises: LongreachError where nothing can be written there."""
    from longreach.reports.ledger_page import ledger_page

    found = run.ledger.to_dict()
    command = " ".join(shlex.quote(word) for word in ("longreach", *sys.argv[1:]))
    page = ledger_page(found, answer, title="What was read", command=command)
    text = page if path.suffix == ".html" else json.dumps({"answer": answer, "ledger": found}, ensure_ascii=False, indent=2) + "\n"
    try:
        write_text(path, text)
    except OSError as error:
        raise LongreachError(f"cannot write {path}: {error.strerror}") from None
