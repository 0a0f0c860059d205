"""The report of a stretch as one structure, drawn from rows, and its three files: JSON for programs, CSV for sheets, HTML for people."""

import csv
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

import longreach
from longreach.core.errors import InputError
from longreach.core.files import replacing_file
from longreach.evaluation.intervals import Interval, block_interval
from longreach.evaluation.rows import Row
from longreach.evaluation.usable import KEEPS, METRIC, RECALLS, summarise
from longreach.reports.report_page import page
from longreach.stretching.choice import RISE_BAR, Standing, label, verdict
from longreach.stretching.stretch import Outcome
from longreach.stretching.tournament import NO_TIME

HTML, JSON, CSV = "report.html", "report.json", "report.csv"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What became of the choice. Args: exported: transformers reads it from its config, without longreach.

    difference: largest difference of the logits there, where that was checked. servers: how other servers run it, or why they cannot.
    """

    folder: str | None = None
    exported: bool = False
    difference: float | None = None
    servers: dict[str, str] | None = None


def report(
    outcome: Outcome, *, command: str, loading: dict[str, Any], text: str, saved: Saved, tuning: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Everything that the files hold. Args: command: that repeats it. loading: the `model` that was loaded, as it was named, and other
    arguments of `longreach.load` that were given. text: what the loss was measured on, in words. tuning: what was done to the tuned model,
    where there is one; of it the page shows the sentences in `words`.

    `chosen` is a spec, "" for the model as it is, None where nothing is good enough; `chosen_tuned` are the steps of tuning before it.
    `rows` has one row for each cell: mean, interval, n. Rows and methods belong together where `model` and `method` are the same.
    Of a method, `length` is how far it was measured, `texts` how many were read beyond the window; `retrieval` is None where it was not
    asked for, or says nothing. `inputs_at_once` are the texts of the forward pass whose `peak_bytes` stand beside it; `memory_compares`
    where they are as many as those of the best method (of the first, where none could win).
    """
    first = outcome.rows[0].settings
    best = outcome.choice.best
    at_once = {one.label: _at_once(one, outcome) for one in outcome.standings}
    compared = next((at_once[one.label] for one in (best, *outcome.standings) if one is not None), 0)
    return {
        "model": outcome.model,
        "trained_window": outcome.trained_window,
        "target": outcome.target,
        "chosen": outcome.chosen,
        "chosen_tuned": best.tuned if best is not None and outcome.choice.good_enough else 0,
        "good_enough": outcome.choice.good_enough,
        "undecided": outcome.choice.undecided,
        "reason": outcome.choice.reason,
        "rule": outcome.rule,
        "purpose": outcome.purpose,
        "best": None if best is None else best.method,
        "bars": {"retrieval": _retrieval_bar(outcome), "rise": RISE_BAR},
        "tuning": tuning,
        "saved": asdict(saved),
        "command": command,
        "loading": loading,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "longreach": longreach.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": _device(first["device"]),
            "dtype": first["dtype"],
        },
        "settings": {
            "windows": outcome.budget.windows,
            "samples": outcome.budget.samples,
            "depths": list(outcome.budget.depths),
            "seed": outcome.seed,
            **{name: first[name] for name in ("batch_size", "chunk_size", "memory", "weights")},
        },
        "text": {"source": text, "sha256": outcome.text_sha256},
        "metric": METRIC,
        "methods": [
            {**_method(one, outcome), "inputs_at_once": at_once[one.label], "memory_compares": at_once[one.label] == compared}
            for one in outcome.standings
        ],
        "not_applicable": [{"method": spec, "why": why} for spec, why in outcome.refused.items() if why != NO_TIME],
        "not_tried": [spec for spec, why in outcome.refused.items() if why == NO_TIME],
        "rises": _rises(outcome),
        "rows": [asdict(row) for row in summarise(outcome.rows)],
    }


def write(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write the three files; each is whole at any time. Returns their paths.

    Raises: InputError where they cannot be written.
    """
    texts = {HTML: page(data), JSON: json.dumps(data, indent=1, allow_nan=False) + "\n", CSV: _csv(data["rows"])}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with replacing_file(folder / name) as new:
                new.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise InputError(f"cannot write a report to {folder}: {error.strerror}") from error
    return [folder / name for name in texts]


def _method(one: Standing, outcome: Outcome) -> dict[str, Any]:
    return {
        "model": label(outcome.model, one.tuned),
        "method": one.method,
        "tuned": one.tuned,
        "label": label(one.method, one.tuned),
        "best": one == outcome.choice.best,
        "verdict": verdict(one, outcome.choice, outcome.purpose),
        "screened": one.screened,
        "forgets": one.forgets,
        "bounded_memory": one.bounded_memory,
        "loss_inside": _interval(one.inside),
        "loss_beyond": _interval(one.beyond),
        "rise": _interval(one.rise),
        "retrieval": None if one.retrieval is None else {**_interval(one.retrieval), "right": round(one.right), "questions": one.prompts},
        "length": one.length,
        "texts": one.texts,
        "tokens_per_s": one.tokens_per_s,
        "peak_bytes": one.peak_bytes,
    }


def _retrieval_bar(outcome: Outcome) -> float | None:
    """None where retrieval was not asked for, or says nothing."""
    return None if outcome.short is None or outcome.short < RECALLS else KEEPS * outcome.short


def _at_once(one: Standing, outcome: Outcome) -> int:
    """How many inputs the batch had that needed the most memory at the target: the rows of a batch share its speed and its memory.

    1 where a text is shared by all questions.
    """
    own = [row for row in outcome.rows if (row.model, row.method, row.length) == (label(outcome.model, one.tuned), one.method, one.length)]
    answers = [row for row in own if row.settings["metric"] == METRIC] or [row for row in own if row.task == "loss"]
    if any("shared" in row.task for row in answers) or answers[0].task == "loss":
        return 1
    batches: dict[tuple[int, float], set[tuple[Any, ...]]] = {}
    for row in answers:
        batch = batches.setdefault((row.peak_bytes or 0, row.tokens_per_s or 0.0), set())
        batch.add((row.settings["input"], row.depth, row.seed))
    return len(batches[max(batches)])


def _rises(outcome: Outcome) -> list[dict[str, Any]]:
    """For each method and octave: its loss less that of the unchanged model on the same tokens inside its window, over blocks."""
    losses = [row for row in outcome.rows if row.settings["metric"] == "loss"]
    inside = {
        _tokens(row): row.score or 0.0 for row in losses if not row.method and (row.task != "loss" or row.length <= outcome.trained_window)
    }
    cells: dict[tuple[str, str, int], list[float]] = {}
    for row in losses:
        if row.task == "loss" and _tokens(row) in inside:
            cells.setdefault((row.model, row.method, row.length), []).append((row.score or 0.0) - inside[_tokens(row)])
    return [
        {"model": model, "method": method, "length": length, "n": len(values), **_interval(block_interval(values))}
        for (model, method, length), values in sorted(cells.items())
    ]


def _tokens(row: Row) -> tuple[str, int]:
    """Which tokens a loss is of: the text and the first of them."""
    return row.settings["text"], row.settings["span"][0]


def _interval(interval: Interval) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in interval._asdict().items()}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
    writer.writeheader()
    writer.writerows({**row, "settings": json.dumps(row["settings"], sort_keys=True)} for row in rows)
    return stream.getvalue()


def _device(kind: str) -> str:
    return torch.cuda.get_device_name() if kind == "cuda" else kind
