"""The contracts of workflows: what reads a task's documents, and what writes a long text, at a desk with a model."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from longreach.core import registry
from longreach.core.errors import InputError, SpecError
from longreach.core.method import Method
from longreach.core.spec import make, parse_settings
from longreach.workflows.counting import BYTES_PER_TOKEN
from longreach.workflows.desk import Desk, Note


@dataclass(frozen=True, kw_only=True)
class Workflow(Method):
    """Asks a model many times, each within its window. The task stands in every prompt word for word.

    What a run costs at most is found by running it with a model that always writes as much as it may; `most_work` says what that model
    answers where other words lead to more calls.
    """

    filler: ClassVar[str] = "a "  # what a long text is made of there
    filler_bytes: ClassVar[int] = BYTES_PER_TOKEN  # that a token of it has, where nobody counts tokens

    def most_work(self, role: str) -> str | None:
        """The answer to calls of a role that leads to the most calls; None: any long text."""
        return None


@dataclass(frozen=True, kw_only=True)
class ReadingWorkflow(Workflow):
    """Does a task on documents of any length."""

    kind: ClassVar[str] = "reading"

    @abstractmethod
    def read(self, desk: Desk) -> Note:
        """The answer, with the places that it goes back to. Raises: WindowError for a window without room; BudgetError; EndpointError."""


@dataclass(frozen=True, kw_only=True)
class WritingWorkflow(Workflow):
    """Writes a text of any length. `documents`: whether it works from some (a draft, examples): it needs them, may have them, or not."""

    kind: ClassVar[str] = "writing"
    documents: ClassVar[Literal["none", "some", "needed"]] = "none"
    filler: ClassVar[str] = "- "  # no word at all, however long: so a text is asked to be gone on with
    filler_bytes: ClassVar[int] = 6  # English has hardly more than four

    def words_meant(self, task: str) -> int | None:
        """How many words the text is to have; None where that is not what it aims at."""
        return None

    def pieces(self, task: str) -> tuple[str, ...]:
        """The task, or its pieces where it is done piece by piece: each prompt has one of them word for word."""
        return (task,)

    @abstractmethod
    def write(self, desk: Desk) -> Iterator[Note]:
        """The parts of the text, in order, as they are done. Raises: WindowError for a window without room; BudgetError; EndpointError."""


def reading_workflow(spec: str | ReadingWorkflow) -> ReadingWorkflow:
    """A reading workflow from its spec, as `chain` or `rag:order=rank`. Raises: SpecError."""
    made = _made(spec, "reading") if isinstance(spec, str) else spec
    if not isinstance(made, ReadingWorkflow):
        raise SpecError(f"{made} is no workflow that reads")
    return made


def writing_workflow(spec: str | WritingWorkflow) -> WritingWorkflow:
    """A writing workflow from its spec. Raises: SpecError."""
    made = _made(spec, "writing") if isinstance(spec, str) else spec
    if not isinstance(made, WritingWorkflow):
        raise SpecError(f"{made} is no workflow that writes")
    return made


def _made(spec: str, kind: str) -> Method:
    name, settings = parse_settings(spec)
    return make(registry.get(name, kind), settings)


def check_documents(workflow: Workflow, given: int) -> None:
    """Raise InputError where a workflow has no documents to work from."""
    if given == 0:
        raise InputError(f"{workflow.name()} works from documents; give at least one")


def check_given(workflow: WritingWorkflow, given: int) -> None:
    """Raise InputError where a workflow lacks documents to write from, and where it would never look at those that are given."""
    if workflow.documents == "needed":
        check_documents(workflow, given)
    if workflow.documents == "none" and given:
        raise InputError(f"{workflow.name()} writes from the task alone, and documents have no effect on it; leave them out")
