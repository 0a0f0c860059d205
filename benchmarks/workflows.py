"""What reading workflows find in texts of many windows, and what it costs: with a scripted model that is perfect inside its window, which
shows what the workflow itself loses, or with a real one.

    python benchmarks/workflows.py perfect --windows 4,16,64 --passages 5
    python benchmarks/workflows.py FOLDER --dtype bfloat16 --window 1024 --windows 4,16 --passages 4 --rows FILE

A stopped run goes on: what is in the rows is not asked again. `make docs` draws docs/workflows.md from docs/evidence/workflows/*.jsonl;
`perfect --page FILE ROWS...` draws such a page from any rows.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from longreach.core.errors import LongreachError
from longreach.core.lines import append_lines
from longreach.data.stdlib import stdlib_text
from longreach.endpoint.base import ChatModel
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, before_stop
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters, Tokens, Units
from longreach.evaluation.evaluate import parse_text_tasks
from longreach.evaluation.text_task import TextTask
from longreach.reports.workflows_page import read_rows, row_key, workflows_page, workflows_table
from longreach.testing.scripted import PerfectReader
from longreach.workflows.base import reading_workflow
from longreach.workflows.run import ReadingRun
from longreach.workflows.spans import Document

WORKFLOWS = (
    "truncate", "rag", "rag:order=rank", "segments", "map_reduce", "chain", "chain:order=backward", "refine", "tree_summary",
    "tree_summary:form=incremental", "recursive", "memory_stream", "reports",
)  # fmt: skip
TASKS = "needle,needles:each=4,threads:steps=3,threads:steps=3,direction=backward"
CHARACTERS = 4  # of a token of the scripted model
_MORE = 24  # tokens that an answer may take beside those of its question, for models that talk


def main() -> None:
    """Ask, and keep a row for each answer."""
    options = _options()
    if options.page:
        Path(options.page[0]).write_text(workflows_page(read_rows(map(Path, options.page[1:]))), encoding="utf-8")
        return
    rows = {row_key(row): row for row in read_rows([options.rows] if options.rows.exists() else [])}
    chosen = options.only or WORKFLOWS
    asked, units = _model(options)
    filler = Filler(stdlib_text("held-out"), units)
    for windows in options.windows:
        for task, number, spec in _cells(parse_text_tasks(options.tasks), options.passages, chosen):
            for question, row in _rows(options, asked, units, task, number, spec, windows, filler, rows):
                append_lines(options.rows, [json.dumps(row)], "row")
                rows[row_key(row)] = row
                print(f"{windows} windows, {task.spec}, passage {number}, question {question}, {spec}: {row['score']:.2f}", flush=True)
    print(workflows_table(list(rows.values())))


def _cells(tasks: Sequence[TextTask], passages: int, workflows: Sequence[str]) -> Iterator[tuple[TextTask, int, str]]:
    for number in range(passages):
        for task in tasks:
            for spec in workflows:
                yield task, number, spec


def _rows(
    options: argparse.Namespace, asked: Callable[[TextTask, Ask], ChatModel], units: Units, task: TextTask, number: int, spec: str,
    windows: int, filler: Filler, known: dict[str, dict[str, Any]],
) -> Iterator[tuple[int, dict[str, Any]]]:  # fmt: skip
    length = windows * options.window * (CHARACTERS if isinstance(units, Characters) else 1)
    passage = task.passage(Space(task=task.spec, length=length, units=units, number=number, text=filler if task.needs_text else None))
    for question, ask in enumerate(passage.asks[: options.questions]):
        row: dict[str, Any] = {
            "model": options.name, "window": options.window, "windows": windows, "task": task.spec, "passage": number,
            "question": question, "workflow": spec, "chance": task.chance(ask),
        }  # fmt: skip
        if row_key(row) in known:
            continue
        run = ReadingRun(
            asked(task, ask), [Document(name="text", text=passage.whole)], ask.text, workflow=reading_workflow(spec), window=options.window,
            answer_tokens=ask.most_tokens + _MORE,
        )  # fmt: skip
        began, answer, failed = time.perf_counter(), "", ""
        try:
            answer = run.answer()
        except LongreachError as error:
            failed = str(error)
        cost = run.ledger.cost
        yield question, row | {
            "score": task.mark(ask, before_stop(answer, ask.sure_stops)), "answer": answer, "failed": failed, "calls": cost.calls,
            "tokens": cost.tokens, "coverage": run.ledger.coverage, "cut": run.ledger.cut, "seconds": time.perf_counter() - began,
        }  # fmt: skip


def _model(options: argparse.Namespace) -> tuple[Callable[[TextTask, Ask], ChatModel], Units]:
    if options.model == "perfect":

        def perfect(task: TextTask, ask: Ask) -> ChatModel:
            linked = task.name() == "threads"  # which line comes next, only the line before it says
            return PerfectReader(ask.evidence, ask.right, window=options.window, characters=CHARACTERS, linked=linked)

        return perfect, Characters()
    import torch

    from longreach.checkpoints.checkpoint import load
    from longreach.conversation.local import LocalModel

    torch.set_num_threads(options.threads)
    loaded = load(options.model, dtype=options.dtype)
    local = LocalModel(loaded.model, loaded.tokenizer, window=options.window)
    return lambda task, ask: local, Tokens(Form(loaded.tokenizer, bool(loaded.tokenizer.chat_template)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("model", help="`perfect`, or a checkpoint's folder")
    parser.add_argument("--window", type=int, default=1024, help="tokens; words, for the scripted model")
    parser.add_argument("--windows", type=lambda text: [int(part) for part in text.split(",")], default=[4, 16, 64])
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--passages", type=int, default=5)
    parser.add_argument("--questions", type=int, default=1, help="of each passage")
    parser.add_argument("--only", action="append", metavar="SPEC", help="this workflow; may be repeated")
    parser.add_argument("--rows", type=Path, default=Path("longreach-results/workflows.jsonl"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", nargs="+", metavar="PATH", help="only write this page from these files of rows")
    options = parser.parse_args()
    options.name = options.model if options.model == "perfect" else Path(options.model).name
    return options


if __name__ == "__main__":
    main()
