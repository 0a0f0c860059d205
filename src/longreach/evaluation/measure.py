"""Measures a loaded model: what is planned is looked up among the rows, and only what is missing is run."""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.cache.base import cuts_prompts
from longreach.checkpoints.places import checkpoint_name
from longreach.core.errors import InputError, LongreachError
from longreach.core.lengths import parse_length
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import parse, stack_of, unparse
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import CHUNK, check_eval, read
from longreach.engine import window
from longreach.engine.apply import applied, apply, check_unapplied, given_model
from longreach.engine.fingerprint import fingerprint
from longreach.evaluation import memory
from longreach.evaluation.asking.space import DEPTHS
from longreach.evaluation.cells import UNTIL_DECIDED, Cells, Stopping
from longreach.evaluation.readings import TextReading, can_share, merged, read_text
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.tasks.base import Case, Task, TaskPlan
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.text import Ids, cut_windows
from longreach.evaluation.usable import INSIDE, Measured

TASKS = "loss+needle:shared=true"

_BEYOND = 4  # trained windows
_FIRST_OCTAVE = 64  # tokens
_SMALL = 100_000_000  # parameters; smaller models read several inputs at once
_LOGITS = 2**26  # float32 values of one chunk's logits that such a batch may need (256 MiB)
_WARM_UP = 16  # tokens
_LEAST = 2  # tokens to measure to
_LEAST_WINDOW = 8  # of `loss_inside`


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    to: int | str | None = None,
    text: str | None = None,
    method: str | Method | Iterable[str | Method] | None = None,
    tasks: str | Sequence[str | Task] | None = None,
    trained_window: int | None = None,
    windows: int | None = None,
    samples: int | None = None,
    depths: Sequence[float] | None = None,
    lengths: Sequence[int] | None = None,
    seed: int | None = None,
    chunk_size: int = CHUNK,
    batch_size: int | None = None,
    within_reach: bool = False,
    name: str | None = None,
    rows: Rows | str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    stopping: Stopping = UNTIL_DECIDED,
    progress: Progress = SILENT,
) -> Measured:
    """Measure how far a model reaches: its loss by position, and whether it finds facts by depth and length.

    By default each text is read once for all that is asked of it, and a length is measured until it is decided on which side of the bar it
    is (`.usable`): two texts at least, four at most, with 25 questions each. Where `windows` or `samples` are given, all of it is measured.

    Returns: what was measured now or found in `rows`: one row a text and block of an octave (loss), two a question (retrieval). `.usable`
    says how far the model can be used.

    Args: model: loaded, in eval mode. tokenizer: of the model. to: longest length, in tokens or as `32k` (default: four trained windows, or
    what a table of positions holds). text: real text; only for tasks that read some (default: this Python's documentation and held-out
    source). method: to measure under. tasks: a spec, as `loss+needle` (default: loss, needles of shared texts, and loss_inside beyond the
    window). trained_window: tokens, where the config does not say or is wrong. windows: of text (default: up to 4, or 2 where the text has
    less room). samples: questions of each length and depth (default: 5 of each text where texts are shared, else 10). depths: where facts
    stand, 0 to 1. seed: of the questions. lengths: of the octaves, those at which anything is asked, and no farther is read (default: all).
    chunk_size: tokens a forward. batch_size: inputs a forward, where texts are not shared (default: up to 8 for a small model, else 1).
    within_reach: leave out the lengths that a table of positions does not hold, where they would be refused. name: what the rows call the
    model (default: the name that it was loaded by). rows: a JSON Lines file to find results in and to add them to (default: in memory
    only). settings: what else was done to the model, for the rows to tell. stopping: when to stop beside that (`evaluation.cells`).
    progress: is told of the work (`core.progress`; default: silent).

    Raises: InputError for what does not fit; LongreachError where memory runs out or the model returns no finite numbers. What was
    measured until then stays in `rows`.
    """
    model = given_model(model)
    check_eval(model)
    numbers = {"chunk_size": chunk_size, "batch_size": batch_size, "trained_window": trained_window}
    if trained_window is not None and trained_window < 1:
        raise InputError(f"trained_window={trained_window} must be at least 1")
    trained = window.window_before_export(model) if trained_window is None else trained_window
    to = _usual_length(model, method, trained) if to is None else parse_length(to)
    if to < _LEAST:
        raise InputError(f"to={to}: a text of one token has nothing to predict")
    stack = stack_of(method, trained_window=window.window_of(model) if trained_window is None else trained_window, target=to)
    if stack:
        check_unapplied(model, stack)
    usual = tasks is None
    tasks = default_tasks(trained, to) if tasks is None else _tasks(tasks)
    if cuts_prompts(stack or stack_of(applied(model))) and (reading := [task for task in tasks if task.only_reads]):
        names, spec = " and ".join(task.name() for task in reading), unparse(stack) or applied(model)
        warnings.warn(f"{spec} cuts a prompt once it has been read, and {names} reads only: it is that of the model itself", stacklevel=2)
    if text is None and _fewest_windows(tasks):
        text = stdlib_text("held-out")
    check(tasks, text=text, windows=windows, samples=samples, depths=depths, seed=seed, **numbers)
    batch_size = batch_size or usual_batch_size(model, chunk_size)
    spec, edges = unparse(stack), octaves(trained, to)
    if lengths is not None and not (lengths and set(lengths) <= set(edges)):
        raise InputError(f"lengths={list(lengths)}: choose among {', '.join(map(str, edges))}")
    encoder = Encoder(tokenizer)
    plan = TaskPlan(
        encoder=encoder,
        edges=tuple(edge for edge in edges if lengths is None or edge <= max(lengths)),
        asked=frozenset(edges if lengths is None else lengths),
        windows=_windows(tasks, encoder, text, to, windows),
        depths=DEPTHS if depths is None else tuple(sorted(depths)),
        samples=samples,
        seed=seed or 0,
        row=common_row(model, name or name_of(model), spec or applied(model), chunk_size, batch_size, settings or {}),
    )
    store = Rows.of(rows)
    with apply(model, spec, warn=False):
        limit = window.position_limit(model)
        if limit is not None and to > limit and not all(task.in_pieces for task in tasks):
            edges = tuple(edge for edge in plan.edges if edge <= limit)
            if not (within_reach and edges):
                raise InputError(f"the model {window.cannot_read(limit)}; measure to {limit} at most, or under a method that lengthens it")
            plan = replace(plan, edges=edges)
        if any(isinstance(task, Needle) and task.shared for task in tasks) and not can_share(model):
            if not usual:
                why = f"{spec or 'the model'} chooses by content what it keeps, or carries a state"
                warnings.warn(f"{why}, so that each needle gets a prompt of its own, which takes longer", stacklevel=2)
            tasks = tuple(replace(task, shared=False) if isinstance(task, Needle) else task for task in tasks)
        decide, once = stopping.early and windows is None and samples is None, [task.spec for task in tasks if task.reads_once]
        cells = Cells(trained, stopping, depths=len(plan.depths), decide=decide, shared=once, texts=len(plan.windows))
        _Run(model, plan, store, cells, chunk_size, batch_size, progress).measure(tasks)
    return Measured(cells.rows, trained, open=cells.open)


def check(
    tasks: Sequence[Task],
    *,
    text: str | None,
    windows: int | None = None,
    samples: int | None = None,
    depths: Sequence[float] | None = None,
    seed: int | None = None,
    **numbers: int | None,
) -> None:
    """Refuse, before a model is loaded, what `measure` would refuse: its arguments, with the other `numbers` that must be at least 1.

    Raises: InputError for a number out of range, and whatever has no effect on these tasks.
    """
    names = " and ".join(task.name() for task in tasks)
    fewest = _fewest_windows(tasks)
    if not tasks:
        raise InputError("no task to measure")
    if not isinstance(depths, Sequence | None):
        raise InputError(f"depths={depths!r}: give a list of numbers from 0 to 1")
    if text is not None and not fewest:
        raise InputError(f"text has no effect on {names}")
    for option, value in (("windows", windows), ("samples", samples), ("depths", depths), ("seed", seed)):
        if value is not None and not any(option in task.options for task in tasks):
            raise InputError(f"{option} has no effect on {names}")
    for option, number, least in (("windows", windows, fewest), ("samples", samples, 1), ("seed", seed, 0)):
        if number is not None and number < least:
            raise InputError(f"{option}={number} must be at least {least} for {names}")
    for option, number in numbers.items():
        if number is not None and number < 1:
            raise InputError(f"{option}={number} must be at least 1")
    if depths is not None and not (depths and all(0 <= depth <= 1 for depth in depths) and len(set(depths)) == len(depths)):
        raise InputError(f"depths={','.join(f'{depth:g}' for depth in depths)}: give different numbers from 0 to 1")


def name_of(model: PreTrainedModel) -> str:
    """What rows call a model where nobody says: the name that it was loaded by (of a folder, the folder's own), else its class."""
    return checkpoint_name(model.name_or_path) if model.name_or_path else type(model).__name__


def _tasks(tasks: str | Sequence[str | Task]) -> tuple[Task, ...]:
    """The tasks meant by a spec, or by tasks and specs."""
    parts = [tasks] if isinstance(tasks, str) else tasks
    return tuple(task for part in parts for task in (parse_tasks(part) if isinstance(part, str) else (part,)))


def _usual_length(model: PreTrainedModel, method: str | Method | Iterable[str | Method] | None, trained: int) -> int:
    """Tokens to measure to where no length is given."""
    reach = _BEYOND * trained
    with apply(model, stack_of(method, trained_window=trained, target=reach), warn=False):
        return min(reach, window.position_limit(model) or reach)


def default_tasks(trained_window: int, to: int) -> tuple[Task, ...]:
    """Loss, passkey and needle; and what the loss beyond the window is compared with, where it is measured so far."""
    inside = f"+loss_inside:window_size={trained_window}" if to > trained_window >= _LEAST_WINDOW else ""
    return parse_tasks(f"{TASKS}{inside}")


def parse_tasks(spec: str) -> tuple[Task, ...]:
    """Tasks from a spec: `loss+passkey:digits=7`.

    Raises: SpecError where it does not parse; InputError where it names a method of another kind, or a task twice.
    """
    tasks = parse(spec, acts_on="measurement")
    for task in tasks:
        if not isinstance(task, Task):
            raise InputError(f"{task.name()} is not a task but a method of the kind {task.kind!r}; measure under it with --method {task}")
        if not task.reads_ids:
            raise InputError(f"{task.name()} asks in plain text; `longreach eval MODEL --tasks {task.name()}` measures it")
    if len(set(tasks)) < len(tasks):
        raise InputError(f"a task is named twice in {spec!r}")
    return tuple(task for task in tasks if isinstance(task, Task))


def octaves(trained: int, to: int) -> tuple[int, ...]:
    """Lengths that halve from the trained window down to 64 and double from it up to `to`, which always ends them.

    >>> octaves(512, 3000)
    (64, 128, 256, 512, 1024, 2048, 3000)
    """
    edges = [min(trained, to)]
    while edges[0] // 2 >= _FIRST_OCTAVE:
        edges.insert(0, edges[0] // 2)
    while edges[-1] < to:
        edges.append(min(edges[-1] * 2, to))
    return tuple(edges)


def _fewest_windows(tasks: Sequence[Task]) -> int:
    return max((task.fewest_windows for task in tasks), default=0)


def _windows(tasks: Sequence[Task], encoder: Encoder, text: str | None, to: int, count: int | None) -> tuple[Ids, ...]:
    """Windows that with the encoder's prefix have `to` tokens; none where no task reads text."""
    fewest = _fewest_windows(tasks)
    return tuple(cut_windows(encoder, text or "", to - len(encoder.prefix), count, fewest)) if fewest else ()


class _Run:
    """One model under one method, and what it has been found to do."""

    def __init__(
        self, model: PreTrainedModel, plan: TaskPlan, rows: Rows, cells: Cells, chunk_size: int, batch_size: int, progress: Progress
    ) -> None:
        self.model, self.plan, self.rows, self.cells = model, plan, rows, cells
        self.chunk_size, self.batch_size, self.progress = chunk_size, batch_size, progress
        self._warm = False

    def measure(self, tasks: Sequence[Task]) -> None:
        """Text by text what shares readings or goes by text, then the others."""
        once, by_text = [task for task in tasks if task.reads_once], [task for task in tasks if task.by_text]
        cases = {task: task.cases(self.plan) for task in by_text}
        texts = self.cells.stopping.texts
        share = 1.0 if texts is None or not self.plan.windows else texts / len(self.plan.windows)  # of what does not go by text
        for number in range(len(self.plan.windows[:texts]) if once or by_text else 0):
            for reading in merged([task.reading(self.plan, number) for task in once]):
                self._read(reading)
            before = len(self.cells.rows)
            for task in by_text:
                case = cases[task][number]
                if rows := tuple(row for row in case.rows if self.cells.compares(row)):
                    self._answer(task, [replace(case, rows=rows, ids=case.ids[: rows[-1].length])])
            self.cells.end_text([row for row in self.cells.rows[before:] if row.task.startswith(INSIDE)])
        for task in tasks:
            if task not in (*once, *by_text):
                self._answer(task, [case for case in task.cases(self.plan) if case.share <= share])

    def _read(self, reading: TextReading) -> None:
        """Take what is known of a reading, and read for what is not."""
        for group in reading.groups:
            self._look_up(group)
        missing = reading.missing(lambda row: self.cells.has(row) or not self.cells.wanted(row))
        if not missing.needed:
            return
        names = dict.fromkeys(row.task.partition(":")[0] for group in missing.groups for row in group)
        self._begin(" and ".join(names), missing.needed, missing.ids)
        with memory.PeakMemory(self.model.device) as peak:
            settings: Any = {"wanted": self.cells.wanted, "chunk_size": self.chunk_size, "progress": self.progress}
            try:
                for rows in read_text(self.model, missing, **settings):
                    self._keep([replace(row, peak_bytes=peak.look()) for row in rows])
                    self.progress.advance(0)  # asking takes time, too, and whoever watches may end the work
            except torch.OutOfMemoryError as error:
                what = f"{' and '.join(names)} in a text of {missing.needed} tokens, {self.chunk_size} tokens a forward"
                raise LongreachError(f"the device's memory is too small for {what}; use a smaller chunk size or length") from error

    def _answer(self, task: Task, cases: Sequence[Case]) -> None:
        """Take what is known of cases, and measure what is not, batch by batch."""
        missing = [case for case in cases if not self._look_up(case.rows) and any(map(self.cells.wanted, case.rows))]
        if missing:
            self._begin(task.name(), sum(len(case.ids) for case in missing), missing[0].ids)
        for batch in _batches(missing, self.batch_size):
            if not any(self.cells.wanted(row) for case in batch for row in case.rows):
                self.progress.advance(sum(len(case.ids) for case in batch))
                continue
            with memory.PeakMemory(self.model.device) as peak:
                began = time.perf_counter()
                scores = _score(self.model, task, batch, self.chunk_size, self.progress)
                seconds = time.perf_counter() - began
            speed = sum(len(case.ids) + case.written for case in batch) / seconds
            self._keep(
                [
                    replace(row, score=score, tokens_per_s=speed, peak_bytes=peak.bytes)
                    for case, values in zip(batch, scores, strict=True)
                    for row, score in zip(case.rows, values, strict=True)
                ]
            )

    def _look_up(self, rows: Sequence[Row]) -> bool:
        """Take rows that were measured before and are still wanted; whether they need not be measured."""
        known = [measured for row in rows if (measured := self.rows.get(row)) is not None]
        if len(known) < len(rows):
            return False
        if any(map(self.cells.wanted, rows)):
            self.cells.take(known)
        return True

    def _keep(self, rows: Sequence[Row]) -> None:
        self.rows.append(rows)
        self.cells.take(rows)

    def _begin(self, label: str, tokens: int, ids: Ids) -> None:
        if not self._warm:  # the first forward of a process is slow
            for _ in read(self.model, torch.from_numpy(ids[None, :_WARM_UP]).long().to(self.model.device)):
                self._warm = True
        self.progress.start(label, tokens)


def _score(model: PreTrainedModel, task: Task, batch: Sequence[Case], chunk_size: int, progress: Progress) -> list[tuple[float, ...]]:
    try:
        return task.score(model, batch, chunk_size=chunk_size, progress=progress)
    except torch.OutOfMemoryError as error:
        what = f"{task.name()} with {len(batch)} inputs of {len(batch[0].ids)} tokens at once, {chunk_size} tokens a forward"
        raise LongreachError(f"the device's memory is too small for {what}; use a smaller batch size, chunk size or length") from error


def _batches(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    """Neighbouring cases with equally many ids, at most `size` of them."""
    for _, group in groupby(cases, key=lambda case: len(case.ids)):
        equal = list(group)
        yield from (equal[start : start + size] for start in range(0, len(equal), size))


def common_row(model: PreTrainedModel, name: str, spec: str, chunk_size: int, batch_size: int, extra: Mapping[str, Any]) -> Row:
    """What all rows of a model that is measured in this process have in common."""
    settings = {
        "weights": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "memory": memory.source(model.device),
        "chunk_size": chunk_size,
        "batch_size": batch_size,
        **extra,
    }
    return Row(task="", model=name, method=spec, length=0, version=longreach.__version__, settings=settings)


def usual_batch_size(model: PreTrainedModel, chunk_size: int) -> int:
    """Inputs a forward where the user does not say: up to 8 for a small model, else 1."""
    if sum(parameter.numel() for parameter in model.parameters()) >= _SMALL:
        return 1
    return max(1, min(8, _LOGITS // (chunk_size * model.config.get_text_config().vocab_size)))
