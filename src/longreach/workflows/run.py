"""Runs of workflows: what they cost at most is known before the first call, and the ledger of what was read stays, however they end."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.endpoint.base import ChatModel
from longreach.endpoint.recording import Recording
from longreach.workflows.base import (
    ReadingWorkflow,
    Workflow,
    WritingWorkflow,
    check_documents,
    check_given,
    reading_workflow,
    writing_workflow,
)
from longreach.workflows.budget import BudgetError, Cost, Meter, RunBudget
from longreach.workflows.counting import TokenCounter
from longreach.workflows.desk import Desk, Note
from longreach.workflows.ledger import Ledger
from longreach.workflows.longest import LongestAnswers
from longreach.workflows.spans import Document

ANSWER_TOKENS = 256
LEAST_WINDOW = 64  # tokens: less holds no task, text and answer
NO_LIMIT = RunBudget()
_UNCOUNTED = 1.02  # times the tokens read, where nobody counts them: how full a prompt gets then hangs on how long words are
W = TypeVar("W", bound=Workflow)


class WorkflowRun(Generic[W]):
    """A workflow with all that it works on, checked. `estimate`: what it costs at most. `ledger`: of what was read so far.

    Args: window: tokens that prompt and answer may have together; default: what the model states. budget: refused beforehand where the
    run may cost more. answer_tokens: of a reading's answer (default: 256, or a quarter of a window that is small). record: a file that
    every call is written to, and calls that it holds are answered from: a run that was stopped goes on, and a `Recording` of the file alone
    as the model replays the run. progress: is told of tokens read.

    Raises: InputError for a task or a window that cannot be meant; BudgetError where the run may cost more than it is allowed.
    """

    def __init__(
        self,
        model: ChatModel,
        documents: Sequence[Document],
        task: str,
        *,
        workflow: W,
        window: int | None = None,
        budget: RunBudget = NO_LIMIT,
        answer_tokens: int | None = None,
        record: str | Path | None = None,
        progress: Progress = SILENT,
    ) -> None:
        if not task.strip():
            raise InputError("the task is empty")
        if answer_tokens is not None and answer_tokens < 1:
            raise InputError(f"answer_tokens={answer_tokens} must be at least 1")
        self.workflow, self.task, self.documents = workflow, task.strip(), tuple(documents)
        self._model = model if record is None else Recording(record, model)
        self.window = window_of(self._model, window)
        self.answer_tokens = min(ANSWER_TOKENS, self.window // 4) if answer_tokens is None else answer_tokens
        self.budget, self.progress = budget, progress
        self._count = TokenCounter(self._model)
        self.estimate = self._estimate(self._model)
        if not budget.covers(self.estimate):
            raise BudgetError(f"{workflow} may take {self.estimate}, and the budget is {budget}; give a larger one, or another workflow")
        self.ledger = self._ledger()

    @contextmanager
    def _desk(self) -> Iterator[Desk]:
        """A desk with an empty ledger, which says why it ended where it did not end well."""
        if self.ledger.calls:  # it is done again
            self.ledger = self._ledger()
        before = self._replayed
        try:
            yield self._desk_of(self._model, self.ledger, self.budget, self.progress)
        except LongreachError as error:
            self.ledger.stopped = str(error)
            raise
        except KeyboardInterrupt:
            self.ledger.stopped = "interrupted"
            raise
        finally:
            self.ledger.replayed = self._replayed - before
            if isinstance(self._model, Recording):
                self._model.flush()

    @property
    def _replayed(self) -> int:
        return self._model.replayed if isinstance(self._model, Recording) else 0

    def _estimate(self, model: ChatModel) -> Cost:
        longest, ledger = LongestAnswers(self.workflow, model), self._ledger()
        for _ in self._parts(self._desk_of(longest, ledger, NO_LIMIT, SILENT, estimates=True)):
            pass
        cost = ledger.cost
        return cost if self._count.exact else Cost(calls=cost.calls, read=math.ceil(cost.read * _UNCOUNTED), written=cost.written)

    def _parts(self, desk: Desk) -> Iterator[Note]:
        """All that the workflow makes."""
        if isinstance(self.workflow, ReadingWorkflow):
            yield self.workflow.read(desk)
        elif isinstance(self.workflow, WritingWorkflow):
            yield from self.workflow.write(desk)

    def _desk_of(self, model: ChatModel, ledger: Ledger, budget: RunBudget, progress: Progress, *, estimates: bool = False) -> Desk:
        return Desk(
            model, self.task, self.documents, window=self.window, answer_tokens=self.answer_tokens, meter=Meter(budget), ledger=ledger,
            count=self._count, progress=progress, estimates=estimates,
        )  # fmt: skip

    def _ledger(self) -> Ledger:
        return Ledger(documents=self.documents, workflow=self.workflow.spec, task=self.task, window=self.window, exact=self._count.exact)


class ReadingRun(WorkflowRun[ReadingWorkflow]):
    """A task on documents of any length. Args and errors: as `WorkflowRun`."""

    def answer(self) -> str:
        """Do it. Raises: BudgetError; EndpointError; what was answered is in the ledger, and in the recording."""
        self.progress.start("reading", self.estimate.read)
        with self._desk() as desk:
            note = self.workflow.read(desk)
            self.ledger.support = note.spans
        return note.text


class WritingRun(WorkflowRun[WritingWorkflow]):
    """A text of any length. Args and errors: as `WorkflowRun`."""

    def parts(self) -> Iterator[str]:
        """Write it: its parts in order, as they are done. Raises: as `ReadingRun.answer`."""
        self.progress.start("writing", self.estimate.read)
        with self._desk() as desk:
            for part in self.workflow.write(desk):
                yield part.text


def reading(
    model: ChatModel, documents: Sequence[str | Document], task: str, *,
    workflow: str | ReadingWorkflow = "map_reduce",
    window: int | None = None, budget: RunBudget = NO_LIMIT, answer_tokens: int | None = None,
    record: str | Path | None = None, progress: Progress = SILENT,
) -> ReadingRun:  # fmt: skip
    """A task on documents, ready to be done: `.estimate` says what it costs at most, `.answer()` does it, `.ledger` says what was read.

    Args: model: an `Endpoint`, a `LocalModel`, or whatever else is a `ChatModel`. documents: texts, or texts with names. task: what is to
    be done. workflow: how, a spec. window: tokens that prompt and answer may have together (default: what the model states). budget: what
    the run may cost. answer_tokens: of the answer (default: 256, or a quarter of a window that is small). record: a file that every call is
    written to, and calls that it holds are answered from. progress: is told of tokens read.
    Raises: as `WorkflowRun`; SpecError; InputError without a document.
    """
    made = reading_workflow(workflow)
    check_documents(made, len(documents))
    return ReadingRun(
        model,
        _documents(documents),
        task,
        workflow=made,
        window=window,
        budget=budget,
        answer_tokens=answer_tokens,
        record=record,
        progress=progress,
    )


def composition(
    model: ChatModel, task: str, *, documents: Sequence[str | Document] = (), workflow: str | WritingWorkflow = "plan_write",
    window: int | None = None, budget: RunBudget = NO_LIMIT, record: str | Path | None = None, progress: Progress = SILENT,
) -> WritingRun:  # fmt: skip
    """A text of any length, ready to be written: `.estimate` says what it costs at most, `.parts()` gives its parts as they are done.

    Args: model: an `Endpoint`, a `LocalModel`, or whatever else is a `ChatModel`. task: what is to be written. documents: that it is
    written from, where the workflow takes some: texts, or texts with names. workflow: how, a spec. window: tokens that prompt and answer
    may have together (default: what the model states). budget: what the run may cost. record: a file that every call is written to, and
    calls that it holds are answered from. progress: is told of tokens read.

    Raises: as `WorkflowRun`; SpecError; InputError without documents for a workflow that needs some, and with documents for one that does
    not read them.
    """
    made = writing_workflow(workflow)
    check_given(made, len(documents))
    return WritingRun(
        model, _documents(documents), task, workflow=made, window=window, budget=budget, record=record, progress=progress
    )  # fmt: skip


def _documents(given: Sequence[str | Document]) -> list[Document]:
    """Texts as documents that are called by their number. Raises: InputError for an empty one."""
    return [each if isinstance(each, Document) else Document(name=f"text {number}", text=each) for number, each in enumerate(given, 1)]


def window_of(model: ChatModel, given: int | None = None) -> int:
    """The window that a run works with. Args: given: default: what the model states.

    Raises: InputError where nobody knows it, and for one that holds nothing.
    """
    window = model.window if given is None else given
    if window is None:
        raise InputError(f"{model.name} does not say how many tokens its window has; give it (--window)")
    if window < LEAST_WINDOW:
        raise InputError(f"window={window} must be at least {LEAST_WINDOW} tokens")
    return window
