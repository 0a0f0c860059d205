"""What holds for every workflow: it stays within window, estimate and budget, keeps the task, and says truly what was read."""

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.core.method import Method
from longreach.endpoint.base import ChatModel
from longreach.endpoint.recording import Recording
from longreach.testing.conformance.base import Check, require
from longreach.testing.scripted import PerfectReader
from longreach.workflows.base import ReadingWorkflow
from longreach.workflows.budget import BudgetError, Cost, RunBudget
from longreach.workflows.ledger import Ledger
from longreach.workflows.run import ReadingRun
from longreach.workflows.spans import Document, Span, characters

_WINDOW = 240  # words
_WINDOWS = 12
_ANSWER = 16
_FACT = "The watchman of Orlow hid the copper key below the seventh stair."
TASK = "Where did the watchman of Orlow hide the copper key?"
RIGHT = "below the seventh stair"
_DEPTHS = (0.05, 0.5, 0.95)
_WORDS = (
    "river",
    "lamp",
    "winter",
    "garden",
    "silver",
    "morning",
    "letter",
    "bridge",
    "quiet",
    "harbour",
    "window",
    "stone",
    "evening",
    "paper",
)


@dataclass(frozen=True, kw_only=True)
class _Ran:
    """A run that ended. Args: estimate: what it was to cost at most."""

    answer: str
    ledger: Ledger
    estimate: Cost
    model: PerfectReader


def check_task_in_every_prompt(workflow: ReadingWorkflow) -> int:
    """The task stands in every prompt word for word."""
    prompts = _prompts(_run(workflow, _documents(0.5)).model)
    return sum(require(TASK in prompt, f"a prompt without the task: {prompt[:200]!r}") for prompt in prompts)


def check_estimate(workflow: ReadingWorkflow) -> int:
    """No run costs more than it was told to cost at most, wherever the fact lies, and a smaller budget is refused beforehand."""
    compared = 0
    for depth in (*_DEPTHS, None):
        ran = _run(workflow, _documents(depth))
        spent, most = ran.ledger.cost, ran.estimate
        within = spent.calls <= most.calls and spent.read <= most.read and spent.written <= most.written
        compared += require(within, f"{spent}, and at most {most} were told")
        compared += require(spent.calls == len(ran.model.requests), f"{len(ran.model.requests)} calls, and the ledger has {spent.calls}")
    try:
        _reading(workflow, _documents(0.5), budget=RunBudget(tokens=most.tokens // 2))
    except BudgetError:
        return compared + 1
    raise AssertionError("half of the tokens that it may take is accepted as its budget")


def check_needle(workflow: ReadingWorkflow) -> int:
    """With a model that is perfect inside its window, it finds a fact in a text of many windows, wherever that lies."""
    return sum(_right(_run(workflow, _documents(depth)), f"at a depth of {depth:.0%}") for depth in _DEPTHS)


def check_inside_the_window(workflow: ReadingWorkflow) -> int:
    """What fits into one window is read and answered."""
    ran = _run(workflow, _documents(0.5, words=_WINDOW // 4))
    return _right(ran, "in a text that fits into the window")


def check_several_documents(workflow: ReadingWorkflow) -> int:
    """Documents are told apart: the ledger finds the fact in the one that has it."""
    documents = [Document(name=f"letter {number}", text=_text(40, 0.5 if number == 3 else None, seed=number)) for number in range(5)]
    ran = _run(workflow, documents)
    compared = _right(ran, "in the fourth of five documents")
    return compared + require(any(span.document == 3 for span in ran.ledger.support), "the answer goes back to no place in that document")


def check_ledger(workflow: ReadingWorkflow) -> int:
    """What the ledger calls read was in the prompt of the call, nothing is both read and unread or neither, and support was read."""
    documents = _documents(0.5)
    ran, ledger = (found := _run(workflow, documents)), found.ledger
    prompts, compared = set(_prompts(ran.model)), 0
    for call in ledger.calls:
        texts = [documents[span.document].text[span.start : span.end].strip() for span in call.spans]
        compared += require(any(all(text in prompt for text in texts) for prompt in prompts), f"call {call.number} did not show its places")
    whole = sum(len(document.text) for document in documents)
    blank = whole - characters([*ledger.read, *ledger.unread])
    compared += require(blank < whole / 100, f"{blank} characters are neither read nor unread")
    require(characters([*ledger.read, *ledger.unread]) == characters(ledger.read) + characters(ledger.unread), "a place is both")
    compared += require(not missing_from(ledger.support, ledger.read), "the answer goes back to what was never read")
    if ran.answer == RIGHT:
        at = documents[0].text.index(_FACT)
        fact = Span(0, at, at + len(_FACT))
        compared += require(not missing_from([fact], ledger.support), "the answer goes back to other places than the fact's")
    return compared


def check_resume(workflow: ReadingWorkflow) -> int:
    """A run that was killed goes on from its recording: the same answer, and no call is made twice. Then the recording alone replays it."""
    documents = _documents(0.5)
    whole = _run(workflow, documents)
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls.jsonl"
        killed = _model(fails_after=len(whole.model.requests) // 2)
        try:
            _reading(workflow, documents, model=killed, record=record).answer()
        except KeyboardInterrupt:
            pass
        else:
            raise AssertionError("the model was killed, and the run did not notice")
        again = _run(workflow, documents, record=record)
        calls, distinct = len(killed.requests) + len(again.model.requests), len({repr(request) for request in whole.model.requests})
        compared = require(again.answer == whole.answer, f"it ends with {again.answer!r}, and without the kill with {whole.answer!r}")
        compared += require(calls == distinct, f"{calls} calls in all, and {distinct} are needed")
        replayed = _reading(workflow, documents, model=Recording(record))
        require(replayed.answer() == whole.answer, "its recording alone gives another answer")
        found, wanted = replayed.ledger.to_dict(), whole.ledger.to_dict() | {"replayed": len(whole.model.requests) - distinct}
        return compared + require(found == wanted, "its recording alone gives another ledger")


def check_concurrency(workflow: ReadingWorkflow) -> int:
    """Four requests at a time give what one at a time gives."""
    alone, together = (_run(workflow, _documents(0.5), model=_model(concurrency=number)) for number in (1, 4))
    compared = require(alone.answer == together.answer, f"{together.answer!r}, and one at a time {alone.answer!r}")
    require(alone.ledger.support == together.ledger.support, "the answer goes back to other places")
    return compared + require(sorted(_prompts(alone.model)) == sorted(_prompts(together.model)), "it asks other things")


def missing_from(wanted: "tuple[Span, ...] | list[Span]", given: "tuple[Span, ...]") -> bool:
    """Whether a character of the wanted places is in none of those given."""
    return characters([*wanted, *given]) > characters(given)


def _right(ran: _Ran, where: str) -> int:
    return require(ran.answer == RIGHT, f"{ran.answer!r} {where}")


def _run(workflow: ReadingWorkflow, documents: list[Document], *, model: PerfectReader | None = None, record: Path | None = None) -> _Ran:
    model = model or _model()
    run = _reading(workflow, documents, model=model, record=record)
    return _Ran(answer=run.answer(), ledger=run.ledger, estimate=run.estimate, model=model)


def _reading(
    workflow: ReadingWorkflow, documents: list[Document], *, model: ChatModel | None = None, record: Path | None = None,
    budget: RunBudget | None = None,
) -> ReadingRun:  # fmt: skip
    return ReadingRun(
        model or _model(), documents, TASK, workflow=workflow, budget=budget or RunBudget(), answer_tokens=_ANSWER, record=record
    )


def _model(**settings: Any) -> PerfectReader:
    return PerfectReader((_FACT,), RIGHT, window=_WINDOW, **settings)


def _prompts(model: PerfectReader) -> list[str]:
    return [str(request.messages[-1]["content"]) for request in model.requests]


def _documents(depth: float | None, words: int = _WINDOW * _WINDOWS) -> list[Document]:
    return [Document(name="chronicle", text=_text(words, depth))]


def _text(words: int, depth: float | None, seed: int = 0) -> str:
    """Sentences that say nothing, with the fact at a depth; None: without it."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    sentences: list[list[str]] = []
    while sum(len(sentence) for sentence in sentences) < words:
        sentences.append([rng.choice(_WORDS) for _ in range(rng.randint(6, 12))])
    said = [f"{' '.join(sentence).capitalize()}." for sentence in sentences]
    if depth is not None:
        said.insert(int(depth * len(said)), _FACT)
    paragraphs = [" ".join(said[at : at + 8]) for at in range(0, len(said), 8)]
    return "\n\n".join(paragraphs)


def _reads(method: Method) -> bool:
    return isinstance(method, ReadingWorkflow)


CHECKS = [
    Check(run=check, applies=_reads)
    for check in (
        check_task_in_every_prompt, check_estimate, check_needle, check_inside_the_window, check_several_documents, check_ledger,
        check_resume, check_concurrency,
    )
]  # fmt: skip
