"""What holds for every workflow that writes: it stays within window, estimate and budget, keeps the task, and loses nothing it wrote."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.core.method import Method
from longreach.testing.conformance.base import Check, require
from longreach.testing.scripted import ScriptedWriter
from longreach.workflows.base import WritingWorkflow
from longreach.workflows.budget import BudgetError, Cost, RunBudget
from longreach.workflows.ledger import Ledger
from longreach.workflows.output_length import words_in
from longreach.workflows.run import WritingRun
from longreach.workflows.spans import Document

_WINDOW = 600  # words
_SMALL = 360
TASK = "htwt\nPlease write a story of 400 words about the watchman of Orlow."
_DRAFTS = (
    "The watchman of Orlow keeps a copper key. He hides it below the seventh stair.\n\nOne day the key is gone, and nobody knows why.",
    "\n\n".join(f"How the wind turned in year {year}!\nThe tower has {year} stairs, and each of them is worn." for year in range(20)),
)
_LEAST, _MOST = 0.75, 1.35  # of the words asked for, with writers that write half of them, or a third more
_SHARES = (1.0, 0.5, 4 / 3)


@dataclass(frozen=True, kw_only=True)
class _Composed:
    """A run that ended. Args: estimate: what it was to cost at most."""

    parts: list[str]
    ledger: Ledger
    estimate: Cost
    model: ScriptedWriter

    @property
    def text(self) -> str:
        return "\n\n".join(self.parts)


def check_writing_task(workflow: WritingWorkflow) -> int:
    """The task, or the piece of it that is being done, stands in every prompt word for word."""
    pieces, prompts = workflow.pieces(TASK), _prompts(_run(workflow).model)
    compared = sum(require(any(piece in prompt for piece in pieces), f"a prompt without the task: {prompt[:200]!r}") for prompt in prompts)
    return compared + sum(require(any(piece in prompt for prompt in prompts), f"in no prompt: {piece!r}") for piece in pieces)


def check_writing_estimate(workflow: WritingWorkflow) -> int:
    """No run costs more than it was told to cost at most, whoever writes, and a smaller budget is refused beforehand."""
    compared = 0
    for window in (_SMALL, 5 * _WINDOW):
        for model in _writers(window):
            ran = _run(workflow, model)
            spent, most = ran.ledger.cost, ran.estimate
            within = spent.calls <= most.calls and spent.read <= most.read and spent.written <= most.written
            compared += require(within, f"{spent}, and at most {most} were told")
            compared += require(spent.calls == len(model.requests), f"{len(model.requests)} calls, and the ledger has {spent.calls}")
    most = _composition(workflow, _model()).estimate
    try:
        _composition(workflow, _model(), budget=RunBudget(tokens=most.tokens - 1))
    except BudgetError:
        return compared + 1
    raise AssertionError("a token less than it may take is accepted as its budget")


def check_writing_window(workflow: WritingWorkflow) -> int:
    """No request is larger than the window, however small that is, and the text is written in spite of it."""
    compared = 0
    for model in _writers(_SMALL):
        ran = _run(workflow, model)
        sizes = [model.size_of_chat(request.messages) + request.most_tokens for request in model.requests]
        compared += require(max(sizes) <= model.window, f"a request of {max(sizes)} tokens in a window of {model.window}")
        compared += require(bool(ran.parts), "nothing is written")
    return compared


def check_writing_resume(workflow: WritingWorkflow) -> int:
    """A run that was killed goes on from its recording: the same text, and no call is made twice."""
    whole = _run(workflow)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls.jsonl"
        killed, before = _model(fails_after=len(whole.model.requests) // 2), list[str]()
        try:
            before.extend(_composition(workflow, killed, record=record).parts())
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("the model was killed, and the run did not notice")
        again = _run(workflow, record=record)
        calls = len(killed.requests) + len(again.model.requests)
        compared = require(again.parts == whole.parts, f"it is {again.text!r}, and without the kill {whole.text!r}")
        return compared + require(
            calls == len(whole.model.requests), f"{calls} calls in all, and {len(whole.model.requests)} without the kill"
        )


def check_writing_length(workflow: WritingWorkflow) -> int:
    """The text is about as long as it is to be, also where the model writes half of what it is asked for, or a third more."""
    meant = workflow.words_meant(TASK) or 0
    compared = 0
    for share in _SHARES:
        words = words_in(_run(workflow, _model(share=share)).text)
        right = _LEAST * meant <= words <= _MOST * meant
        compared += require(right, f"{words} words where {meant} are meant, by a model that writes {share:.2f} of what it is asked for")
    return compared


def check_nothing_is_lost(workflow: WritingWorkflow) -> int:
    """Every word that the model wrote as text stands in the parts, in the order in which it was written, and once."""
    compared = 0
    for share in _SHARES:
        ran = _run(workflow, _model(share=share))
        written = [word for call in ran.ledger.calls if call.role == "text" for word in call.text.split()]
        text = ran.text.split()
        compared += require([word for word in text if word in set(written)] == written, "the parts are not what was written")
    return compared


def check_cuts_are_told(workflow: WritingWorkflow) -> int:
    """The ledger counts every answer that ended at its limit."""
    compared = 0
    for model in (_model(share=9.0), _model(fluent=False), _model()):
        ran = _run(workflow, model)
        compared += require(ran.ledger.cut == model.cut, f"{model.cut} answers were cut, and the ledger has {ran.ledger.cut}")
    return compared


def check_writing_concurrency(workflow: WritingWorkflow) -> int:
    """Four requests at a time give what one at a time gives."""
    alone, together = (_run(workflow, _model(concurrency=number)) for number in (1, 4))
    compared = require(alone.parts == together.parts, f"{together.text!r}, and one at a time {alone.text!r}")
    return compared + require(sorted(_prompts(alone.model)) == sorted(_prompts(together.model)), "it asks other things")


def _writers(window: int) -> Iterator[ScriptedWriter]:
    """Writers of too little, of too much, of nothing but dashes, of no plan, of objections to everything, and one that counts no tokens."""
    yield ScriptedWriter(window=window, share=0.5)
    yield ScriptedWriter(window=window, share=9.0)
    yield ScriptedWriter(window=window, fluent=False)
    yield ScriptedWriter(window=window, share=0.0, points=0)
    yield ScriptedWriter(window=window, content=False, points=60)
    yield ScriptedWriter(window=2 * window, counts=False, content=False)


def _run(workflow: WritingWorkflow, model: ScriptedWriter | None = None, *, record: Path | None = None) -> _Composed:
    model = model or _model()
    run = _composition(workflow, model, record=record)
    return _Composed(parts=list(run.parts()), ledger=run.ledger, estimate=run.estimate, model=model)


def _composition(
    workflow: WritingWorkflow, model: ScriptedWriter, *, record: Path | None = None, budget: RunBudget | None = None
) -> WritingRun:  # fmt: skip
    documents = [Document(name=f"draft {number}", text=text) for number, text in enumerate(_DRAFTS)] if workflow.documents != "none" else []
    return WritingRun(model, documents, TASK, workflow=workflow, budget=budget or RunBudget(), record=record)


def _model(**settings: Any) -> ScriptedWriter:
    return ScriptedWriter(window=_WINDOW, **settings)


def _prompts(model: ScriptedWriter) -> list[str]:
    return [str(request.messages[-1]["content"]) for request in model.requests]


def _writes(method: Method) -> bool:
    return isinstance(method, WritingWorkflow)


def _writes_at_length(method: Method) -> bool:
    return isinstance(method, WritingWorkflow) and method.words_meant(TASK) is not None


CHECKS = [
    *(
        Check(run=check, applies=_writes)
        for check in (
            check_writing_task,
            check_writing_estimate,
            check_writing_window,
            check_writing_resume,
            check_cuts_are_told,
            check_writing_concurrency,
        )
    ),
    *(Check(run=check, applies=_writes_at_length) for check in (check_writing_length, check_nothing_is_lost)),
]
