"""Measures a loaded model: what is planned is looked up among the rows, and only what is missing is run."""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import parse, unparse
from longreach.evaluation import memory
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.tasks.base import Case, Plan, Task
from longreach.evaluation.text import Encoder, cut_windows
from longreach.models import window
from longreach.models.apply import _APPLIED as APPLIED
from longreach.models.apply import apply
from longreach.models.reading import CHUNK, read

TASKS = "loss+passkey+needle"
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SAMPLES = 4

_FIRST_OCTAVE = 64  # tokens
_SMALL = 100_000_000  # parameters; smaller models read several inputs at once
_LOGITS = 2**26  # float32 values of one chunk's logits that such a batch may need (256 MiB)
_WARM_UP = 16  # tokens


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    to: int,
    text: str | None = None,
    method: str = "",
    tasks: Sequence[Task] | None = None,
    trained_window: int | None = None,
    windows: int | None = None,
    samples: int | None = None,
    depths: Sequence[float] | None = None,
    seed: int | None = None,
    chunk_size: int = CHUNK,
    batch_size: int | None = None,
    rows: Rows | None = None,
    progress: Progress = SILENT,
) -> list[Row]:
    """Every planned observation, measured now or found in `rows`: one row a window and octave (loss), two a prompt (retrieval).

    Args: name: of the model, as rows are to call it. to: longest length (tokens, at least the trained window).
    text: real text; only for tasks that read some. method: a spec to measure under. tasks: default loss, passkey and needle.
    trained_window: tokens, where the config does not say or is wrong. windows: of text (default: 16, or 8, 4, 2 where the text has less
    room). samples: prompts of each length and depth. chunk_size: tokens a forward.
    batch_size: inputs a forward (default: up to 8 for a small model, else 1).

    Raises: InputError for what does not fit; LongreachError where the model returns no finite numbers. What was measured stays in `rows`.
    """
    tasks = default_tasks() if tasks is None else tasks
    if model.training:
        raise InputError("the model is in training mode, where dropout makes results random; call model.eval() first")
    _check_options(tasks, {"windows": windows, "samples": samples, "depths": depths, "seed": seed}, text)
    _check_numbers(trained_window=trained_window, windows=windows, samples=samples, chunk_size=chunk_size, batch_size=batch_size)
    trained = trained_window or window.trained_window(model.config)
    if to < trained:
        raise InputError(f"nothing to compare: the length to measure to ({to}) is below the trained window of {trained} tokens")
    encoder = Encoder(tokenizer)
    fewest = max((task.fewest_windows for task in tasks), default=0)
    texts = cut_windows(encoder, text or "", to - len(encoder.prefix), windows, fewest) if fewest else []
    batch_size = batch_size or _batch_size(model, chunk_size)
    spec = unparse(parse(method)) if method else ""
    plan = Plan(
        encoder=encoder,
        edges=octaves(trained, to),
        windows=tuple(texts),
        depths=DEPTHS if depths is None else _checked_depths(depths),
        samples=SAMPLES if samples is None else samples,
        seed=_checked_seed(seed or 0),
        row=_common(model, name, spec or vars(model).get(APPLIED, ""), chunk_size, batch_size),
    )
    rows = Rows() if rows is None else rows
    with apply(model, spec):
        if (limit := window.position_limit(model)) is not None and to > limit:
            raise InputError(f"the model has positions for {limit} tokens only (a table of absolute positions); measure to {limit} at most")
        return [row for task in tasks for row in _measure_task(model, task, plan, rows, chunk_size, batch_size, progress)]


def default_tasks() -> tuple[Task, ...]:
    """The tasks of `TASKS`."""
    return parse_tasks(TASKS)


def parse_tasks(spec: str) -> tuple[Task, ...]:
    """Tasks from a spec: `loss+passkey:digits=7`.

    Raises: SpecError where it does not parse; InputError where it names a method of another kind, or a task twice.
    """
    tasks = parse(spec)
    for task in tasks:
        if not isinstance(task, Task):
            raise InputError(f"{task.name()} is not a task but a method of the kind {task.kind!r}; measure under it with --method {task}")
    if len(set(tasks)) < len(tasks):
        raise InputError(f"a task is named twice in {spec!r}")
    return tuple(task for task in tasks if isinstance(task, Task))


def octaves(trained: int, to: int) -> tuple[int, ...]:
    """Lengths that halve from the trained window down to 64 and double from it up to `to`, which always ends them.

    >>> octaves(512, 3000)
    (64, 128, 256, 512, 1024, 2048, 3000)
    """
    edges = [trained]
    while edges[0] // 2 >= _FIRST_OCTAVE:
        edges.insert(0, edges[0] // 2)
    while edges[-1] < to:
        edges.append(min(edges[-1] * 2, to))
    return tuple(edges)


def fingerprint(model: PreTrainedModel) -> str:
    """16 hexadecimal digits that change with the config and with any parameter's size or sampled values (up to 64 of each)."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in ("_name_or_path", "transformers_version")}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        if not parameter.is_meta:  # offloaded weights are not here to look at
            sample = parameter.detach().flatten()[:: max(1, parameter.numel() // 64)][:64]
            digest.update(sample.double().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _measure_task(
    model: PreTrainedModel, task: Task, plan: Plan, rows: Rows, chunk_size: int, batch_size: int, progress: Progress
) -> list[Row]:
    """The task's rows; those that are missing are measured and kept, batch by batch."""
    cases = task.cases(plan)
    missing = [case for case in cases if any(rows.get(row) is None for row in case.rows)]
    if missing:
        for _ in read(model, torch.from_numpy(missing[0].ids[None, :_WARM_UP]).long().to(model.device)):
            pass  # the first forward of a process is slow
        progress.start(task.name(), sum(len(case.ids) for case in missing))
    for batch in _batches(missing, batch_size):
        with memory.PeakMemory(model.device) as peak:
            began = time.perf_counter()
            scores = task.score(model, batch, chunk_size=chunk_size, progress=progress)
            seconds = time.perf_counter() - began
        speed = sum(len(case.ids) + case.written for case in batch) / seconds
        rows.append(
            replace(row, score=score, tokens_per_s=speed, peak_bytes=peak.bytes)
            for case, values in zip(batch, scores, strict=True)
            for row, score in zip(case.rows, values, strict=True)
        )
    return [measured for case in cases for row in case.rows if (measured := rows.get(row)) is not None]


def _batches(cases: Sequence[Case], size: int) -> Iterator[list[Case]]:
    """Neighbouring cases with equally many ids, at most `size` of them."""
    for _, group in groupby(cases, key=lambda case: len(case.ids)):
        equal = list(group)
        yield from (equal[start : start + size] for start in range(0, len(equal), size))


def _common(model: PreTrainedModel, name: str, spec: str, chunk_size: int, batch_size: int) -> Row:
    settings = {
        "weights": fingerprint(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.device.type,
        "memory": memory.source(model.device),
        "chunk_size": chunk_size,
        "batch_size": batch_size,
    }
    return Row(task="", model=name, method=spec, length=0, version=longreach.__version__, settings=settings)


def _batch_size(model: PreTrainedModel, chunk_size: int) -> int:
    if sum(parameter.numel() for parameter in model.parameters()) >= _SMALL:
        return 1
    return max(1, min(8, _LOGITS // (chunk_size * model.config.get_text_config().vocab_size)))


def _check_options(tasks: Sequence[Task], given: dict[str, Any], text: str | None) -> None:
    names = " and ".join(task.name() for task in tasks)
    if not tasks:
        raise InputError("no task to measure")
    needs_text = any(task.fewest_windows for task in tasks)
    if needs_text and text is None:
        raise InputError(f"{names}: real text is needed")
    if text is not None and not needs_text:
        raise InputError(f"text has no effect on {names}")
    for option, value in given.items():
        if value is not None and not any(option in task.options for task in tasks):
            raise InputError(f"{option} has no effect on {names}")
    if given["windows"] is not None and given["windows"] < (fewest := max(task.fewest_windows for task in tasks)):
        raise InputError(f"windows={given['windows']} must be at least {fewest} for {names}")


def _check_numbers(**numbers: int | None) -> None:
    for option, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"{option}={value} must be at least 1")


def _checked_depths(depths: Sequence[float]) -> tuple[float, ...]:
    if not depths or not all(0 <= depth <= 1 for depth in depths) or len(set(depths)) < len(depths):
        raise InputError(f"depths={','.join(f'{depth:g}' for depth in depths)}: give different numbers from 0 to 1")
    return tuple(sorted(depths))


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise InputError(f"seed={seed} must be at least 0")
    return seed
