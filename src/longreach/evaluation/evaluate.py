"""Evaluates a loaded model on text tasks, at several lengths and under a method."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.checkpoints.places import checkpoint_name
from longreach.conversation.local import LocalModel
from longreach.conversation.window import stack_for, window_for
from longreach.core.errors import InputError
from longreach.core.lengths import parse_length
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import parse, stack_of, unparse
from longreach.data.stdlib import stdlib_text
from longreach.decoding.reading import CHUNK, check_eval
from longreach.endpoint.base import ChatModel
from longreach.engine.apply import applied, apply, check_unapplied, given_model
from longreach.engine.window import cannot_read, position_limit
from longreach.engine.window import window_of as trained_window_of
from longreach.evaluation.asking.answerer import Answerer, ModelAnswerer
from longreach.evaluation.asking.by_workflow import WorkflowAnswerer
from longreach.evaluation.asking.cutting import Side
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.remote import EndpointAnswerer
from longreach.evaluation.asking.units import Characters, Tokens
from longreach.evaluation.course import PASSAGES, Course, Examined, take
from longreach.evaluation.measure import common_row, name_of
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.scoring.judge import Judge
from longreach.evaluation.text_task import TextTask
from longreach.evaluation.time_limit import TimeLimit
from longreach.workflows.base import ReadingWorkflow, reading_workflow

Counting = Literal["tokens", "characters"]
_TEMPLATE = 32  # tokens that a chat template may add, where nobody knows it


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """How passages are read by a workflow. Args: window: that is asked for. more_tokens: of `evaluate`."""

    workflow: ReadingWorkflow
    window: int | None
    more_tokens: int

    def answerer(self, model: ChatModel, units: Tokens | Characters) -> WorkflowAnswerer:
        """The one who answers. Raises: InputError for a window that nobody knows."""
        return WorkflowAnswerer(model, units, self.workflow, window=self.window, more_tokens=self.more_tokens)


def _reading(workflow: str | ReadingWorkflow | None, window: int | None, more_tokens: int, chat: bool | None) -> _Reading | None:
    """None without a workflow. Raises: SpecError; InputError for what has no effect with a workflow, or without."""
    if workflow is None:
        if window is not None:
            raise InputError("window has no effect without a workflow")
        return None
    if chat is not None:
        raise InputError("chat has no effect with a workflow, which asks in the chat template where there is one")
    return _Reading(workflow=reading_workflow(workflow), window=window, more_tokens=more_tokens)


def _told(answerer: WorkflowAnswerer) -> dict[str, Any]:
    """What rows say of a workflow."""
    return {"workflow": answerer.workflow.spec, "window": answerer.window, "more_tokens": answerer.more_tokens}


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    tasks: str | Sequence[TextTask],
    lengths: str | Sequence[int],
    method: str | Method | Iterable[str | Method] | None = None,
    passages: int = PASSAGES,
    seed: int = 0,
    text: str | None = None,
    truncate: Side | None = None,
    judge: ChatModel | None = None,
    unit: Counting = "tokens",
    chat: bool | None = None,
    chunk_size: int = CHUNK,
    workflow: str | ReadingWorkflow | None = None,
    window: int | None = None,
    more_tokens: int = 0,
    name: str | None = None,
    rows: Rows | str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    share: tuple[int, int] = (0, 1),
    seconds: float | None = None,
    progress: Progress = SILENT,
) -> Examined:
    """Ask a model the questions of text tasks, and keep a row for each answer.

    Each passage is read once for all questions about it, and answers are written greedily.

    Returns: the rows that were measured now or found in `rows`, and the lengths at which a task has no passages.

    Args: model: loaded, in eval mode. tokenizer: of the model. tasks: names with their settings, as `needle,tsort:segments=4`. lengths: of
    prompt and answer together: `1k:64k` doubles from the first to the last, `1k,3000` names them. method: to evaluate under. passages: of
    each task and length. seed: of all that is random. text: real text to fill passages with (default: this Python's documentation and held-
    out source). truncate: where texts of a length of their own are cut if they are too long (default: they are refused). judge: a model
    behind an endpoint that marks answers in free words, too. unit: what lengths count; in characters all tokenizers get the same passages.
    chat: ask in the tokenizer's chat template (default: where it has one). chunk_size: tokens a forward. workflow: a reading workflow
    (`rag`) that reads the passages, in calls that each fit its window (default: the model reads them at once). window: tokens that prompt
    and answer of such a call may have together (default: what the model or the method reaches). more_tokens: that a workflow's answer may
    take beyond those of its question; lengths have room for them. name: what the rows call the model. rows: a JSON Lines file to find
    results in and to add them to (default: in memory only). settings: what else was done to the model, for the rows to tell. share: (k, n)
    of the passages every nth, from the kth on, where several processes share the work. seconds: for what is not in `rows` yet;
    passages then come in rounds, one of each task and length, and those that there is no time for are left out (default: no limit).
    progress: is told of the work.

    Raises: InputError for what does not fit; LongreachError where memory runs out or the model returns no finite numbers. What was
    measured until then stays in `rows`.
    """
    model = given_model(model)
    check_eval(model)
    chosen = parse_text_tasks(tasks) if isinstance(tasks, str) else tuple(tasks)
    steps = parse_lengths(lengths) if isinstance(lengths, str) else tuple(lengths)
    reading = _reading(workflow, window, more_tokens, chat)
    if reading is None:
        if more_tokens:
            raise InputError("more_tokens has no effect without a workflow")
        stack = stack_of(method, trained_window=trained_window_of(model), target=max(steps) if unit == "tokens" else None)
        if stack:
            check_unapplied(model, stack)
    else:
        stack = stack_for(model, method, window)
        reach, concerns = window_for(model, name or name_of(model), stack, window)
        reading = replace(reading, window=reach)
        for concern in concerns:
            warnings.warn(concern, stacklevel=2)
    spec = unparse(stack)
    extra = {"sampling": "greedy", **(settings or {})}
    row = common_row(model, name or name_of(model), spec or applied(model), chunk_size, 1, extra)  # of the model's own weights
    with apply(model, spec, warn=False):
        answerer, told = _answerer(model, tokenizer, unit, chat, chunk_size, reading, max(steps))
        row = replace(row, settings={**row.settings, **told})
        course = Course(
            tasks=chosen, lengths=steps, passages=passages, seed=seed, text=text_for(chosen, text), truncate=truncate,
            judge=None if judge is None else Judge(judge), row=row, share=share,
        )  # fmt: skip
        limit = None if seconds is None else TimeLimit(seconds)
        return take(answerer, course, Rows.of(rows), limit=limit, progress=progress)


def _answerer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, unit: Counting, chat: bool | None, chunk_size: int,
    reading: _Reading | None, longest: int,
) -> tuple[Answerer, dict[str, Any]]:  # fmt: skip
    """Who answers for a model in this process, and what rows say of that. Args: longest: length that is asked for.

    Raises: InputError for lengths that the model cannot read.
    """
    if reading is None:
        own = ModelAnswerer(model, tokenizer, chat=chat, units=Characters() if unit == "characters" else None, chunk_size=chunk_size)
        if isinstance(own.units, Tokens) and (limit := position_limit(model)) is not None and longest > limit:
            raise InputError(f"the model {cannot_read(limit)}; choose lengths to {limit} at most, or a method that lengthens it")
        return own, {"template": "chat" if own.form.chat else "none"}
    form, more = Form(tokenizer, bool(tokenizer.chat_template)), reading.more_tokens
    local = LocalModel(model, tokenizer, window=reading.window, chunk_size=chunk_size)
    by_workflow = reading.answerer(local, Characters(more=more) if unit == "characters" else Tokens(form, more=more))
    return by_workflow, {"template": "chat" if form.chat else "none", **_told(by_workflow)}


def evaluate_endpoint(
    endpoint: ChatModel,
    *,
    tasks: str | Sequence[TextTask],
    lengths: str | Sequence[int],
    tokenizer: PreTrainedTokenizerBase | None = None,
    passages: int = PASSAGES,
    seed: int = 0,
    text: str | None = None,
    truncate: Side | None = None,
    judge: ChatModel | None = None,
    chat: bool = True,
    more_tokens: int = 0,
    workflow: str | ReadingWorkflow | None = None,
    window: int | None = None,
    rows: Rows | str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Examined:
    """Ask a model behind an endpoint the questions of text tasks, and keep a row for each answer; what failed is asked again next time.

    Returns: the rows that were measured now or found in `rows`, and the lengths at which a task has no passages.

    Args: endpoint: an `Endpoint`, or a `Recording` of one. tasks, lengths: as in `evaluate`. tokenizer: lengths count its tokens (default:
    characters). passages: of each task and length. seed: of all that is random. text: real text to fill passages with (default: this
    Python's documentation and held-out source). truncate, judge: as in `evaluate`. chat: ask as a user's message; otherwise the model
    completes text. more_tokens: that an answer may take beyond those of its question, for models that think or talk before they answer;
    lengths have room for them. workflow: a reading workflow (`rag`) that reads the passages, in calls that each fit its window (default:
    whole passages are sent). window: tokens that prompt and answer of such a call may have together (default: what the endpoint states).
    rows: a JSON Lines file to find results in and to add them to (default: in memory only). settings: what else there is to know of the
    endpoint, for the rows to tell. progress: is told of the work.

    Raises: InputError for what does not fit; UnusableEndpointError for an endpoint that nobody gets an answer from.
    """
    chosen = parse_text_tasks(tasks) if isinstance(tasks, str) else tuple(tasks)
    steps = parse_lengths(lengths) if isinstance(lengths, str) else tuple(lengths)
    reading = _reading(workflow, window, more_tokens, None if chat else chat)
    units: Tokens | Characters = Characters(more=more_tokens)
    if tokenizer is not None:
        templated = chat and bool(tokenizer.chat_template)
        units = Tokens(Form(tokenizer, templated), more=more_tokens + (_TEMPLATE if chat and not templated else 0))
    extra = {
        "endpoint": getattr(endpoint, "url", ""), "template": "chat" if chat else "none", "sampling": "greedy", "more_tokens": more_tokens,
        "tokenizer": "" if tokenizer is None else checkpoint_name(tokenizer.name_or_path), **(settings or {}),
    }  # fmt: skip
    answerer: Answerer
    if reading is None:
        answerer = EndpointAnswerer(endpoint, units, chat=chat, more_tokens=more_tokens)
    else:
        answerer = by_workflow = reading.answerer(endpoint, units)
        extra |= _told(by_workflow)
    row = Row(task="", model=endpoint.name, method="", length=0, version=longreach.__version__, settings=extra)
    course = Course(
        tasks=chosen, lengths=steps, passages=passages, seed=seed, text=text_for(chosen, text), truncate=truncate,
        judge=None if judge is None else Judge(judge), row=row,
    )  # fmt: skip
    return take(answerer, course, Rows.of(rows), progress=progress)


def text_for(tasks: Sequence[TextTask], text: str | None) -> str | None:
    """Real text for the tasks, where one of them needs some."""
    if not any(task.needs_text for task in tasks):
        return None
    return stdlib_text("held-out") if text is None else text


def parse_text_tasks(text: str) -> tuple[TextTask, ...]:
    """The text tasks of a list: `needle:digits=7,tsort` (a comma before `key=value` separates settings, any other separates tasks).

    Raises: SpecError where it does not parse; InputError for what asks nothing in plain text, and for a task that is named twice.
    """
    found: list[TextTask] = []
    for spec in split_tasks(text):
        for task in parse(spec, acts_on="measurement"):
            if not isinstance(task, TextTask):
                raise InputError(f"{task.name()} asks nothing in plain text; `longreach measure MODEL --tasks {task.name()}` measures it")
            if task in found:
                raise InputError(f"{task.spec} is named twice")
            found.append(task)
    if not found:
        raise InputError("no task is named")
    return tuple(found)


def split_tasks(text: str) -> list[str]:
    """The specs of a list.

    >>> split_tasks("needle:digits=7,shared=true,tsort, passkey")
    ['needle:digits=7,shared=true', 'tsort', 'passkey']
    """
    specs: list[str] = []
    for part in (part.strip() for piece in text.split("+") for part in piece.split(",")):
        if specs and "=" in part and ":" not in part.partition("=")[0]:
            specs[-1] += f",{part}"
        elif part:
            specs.append(part)
    return specs


def parse_lengths(text: str) -> tuple[int, ...]:
    """The lengths meant by `1k:64k` (doubled from the first to the last, which ends them) or `1k,3000,8k`.

    Raises: SpecError for what is no length; InputError for a span that falls.

    >>> parse_lengths("1k:6k"), parse_lengths("512,300")
    ((1024, 2048, 4096, 6144), (300, 512))
    """
    found: set[int] = set()
    for part in text.split(","):
        first, colon, last = part.partition(":")
        low = parse_length(first)
        high = parse_length(last) if colon else low
        if high < low:
            raise InputError(f"lengths {part.strip()}: they go from the least to the greatest")
        while low < high:
            found.add(low)
            low *= 2
        found.add(high)
    return tuple(sorted(found))
