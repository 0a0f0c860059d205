"""`longreach read`: a task on documents that are longer than any window."""

import json
from typing import Annotated

import typer

from longreach.cli._options import AS_IT_IS, Loading, loads_model
from longreach.cli._workflow import (
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
    timeout: Silence = None,
    method: UnderMethod = None,
    window: Window = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the answer. [default: 256, or a quarter of a window that is small]")
    ] = None,
    budget_calls: BudgetCalls = None,
    budget_tokens: BudgetTokens = None,
    record: Record = None,
    replay: Replay = None,
    ledger: LedgerFile = None,
    loading: Loading = AS_IT_IS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object with answer and ledger, for programs.")] = False,
) -> None:
    """Do a task on documents of any length, in many calls, each within the window; and say what was read for it."""
    place = AskedPlace(
        model=model, endpoint=endpoint, served_model=served_model, concurrency=concurrency, timeout=timeout, method=method, window=window,
        record=record, replay=replay, loading=loading,
    )  # fmt: skip
    chosen, budget, documents = reading_workflow(workflow), budget_of(budget_calls, budget_tokens), documents_of(docs)
    if not ask.strip():
        raise InputError("--ask is empty; say what is to be done")
    check_ledger(ledger)

    from longreach.cli._progress import BarProgress

    with chat_model(place) as asked, BarProgress() as progress:
        run = ReadingRun(
            asked, documents, ask, workflow=chosen, window=place.tokens, budget=budget, answer_tokens=max_new_tokens, record=record,
            progress=progress,
        )  # fmt: skip
        show_estimate(run, place)
        answer = ""
        try:
            answer = run.answer()
        finally:
            write_ledger(ledger, run, answer)
    typer.echo(str(run.ledger), err=True)
    print(json.dumps({"answer": answer, "ledger": run.ledger.to_dict()}, ensure_ascii=False) if as_json else answer)
