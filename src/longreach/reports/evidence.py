"""Draws what was measured: the page docs/evidence.md, and numbers between markers in pages that people write.

`docs/evidence/*.jsonl` holds claims (benchmarks/evidence.py), `lengths/*.jsonl` all methods by length (benchmarks/lengths.py; of
encoders, experiments/minilm.py), and `models/*.json` what the models are.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreach.core import registry
from longreach.reports.words import RISE

Cells = dict[str, Any]

CLAIM = (
    "method", "model", "condition", "data", "setting", "metric", "number", "low", "high", "of", "bar", "paper_claim", "verdict", "command",
)  # fmt: skip
LENGTH = (
    "model", "window", "condition", "data", "command", "method", "setting", "length", "texts", "prompts", "loss", "rise", "rise_low",
    "rise_high", "found", "found_low", "found_high", "tokens_per_s", "peak_bytes", "forgets",
)  # fmt: skip
MODEL = ("model", "family", "parameters", "layers", "heads", "kv_heads", "head_dim", "window", "trained_on")
RISE_BAR, KEEPS = 0.05, 0.85  # those of `longreach stretch`

_CLAIM_HEADER = (
    "method",
    "paper's claim",
    "of models",
    "model",
    "setting",
    "measured",
    "number",
    "95 % interval",
    "of",
    "bar",
    "verdict",
    "command",
)
_MISSING = "not measured"
_NEAREST = "Share of queries whose own document is the nearest:"
_STOCK = "stock model"  # as rows call it
_MARKED = re.compile(r"<!-- (rise|found|claims|reach) (.*?) -->.*?<!-- /\1 -->", re.DOTALL)
_INTRO = """\
Written by `make docs` from the rows in `docs/evidence/`. Every number comes from the command beside it.

A number stands with its 95 % interval. Losses are compared text by text, on the same tokens (Student's t; Fieller's for shares of a
loss); shares of answers have Wilson's interval, what a method adds to such a share, on the same questions, Newcombe's, and one share
divided by another Donner and Zou's. A claim **holds** where all of the interval is inside the bar, does **not hold** where all of it is
outside, and is *undecided* where the bar lies within the interval: more texts or questions would tell. The bars are ours, for the papers
measured other models; retrieval has to keep 85 % of what the model finds inside its window, as for `longreach stretch`.

A claim is about models in one condition, and is measured in that: *untuned*, a checkpoint as it is; *tuned*, after continued training under
the method; *trained*, from scratch, or with weights of the method's own.

Of the settings that a method suggests the best is shown, which favours it a little. Questions about one text count as independent, which
makes shares look surer than they are."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Rows of `CLAIM`, of `LENGTH` and of `MODEL`."""

    claims: Sequence[Cells] = ()
    lengths: Sequence[Cells] = ()
    models: Sequence[Cells] = ()


def read(folder: Path) -> Evidence:
    """All rows in the folder.

    Raises: ValueError, with file and line, for a row whose fields are not exactly those of its kind.
    """
    claims = rows_of(folder, "*.jsonl", CLAIM)
    return Evidence(
        claims=sorted(claims, key=lambda row: (row["method"], row["metric"])),  # stable: models stay in the order of the files
        lengths=rows_of(folder / "lengths", "*.jsonl", LENGTH),
        models=rows_of(folder / "models", "*.json", MODEL),
    )


def rows_of(folder: Path, pattern: str, fields: Sequence[str]) -> list[Cells]:
    """The rows of all files of JSON lines that the pattern matches, file by file.

    Raises: ValueError, with file and line, for a row whose fields are not exactly those.
    """
    rows = []
    for path in sorted(folder.glob(pattern)):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            row = json.loads(line)
            if set(row) != set(fields):
                raise ValueError(f"{path}:{number}: missing or unknown fields: {', '.join(sorted(set(row) ^ set(fields)))}")
            rows.append(row)
    return rows


def evidence_page(evidence: Evidence) -> str:
    """What was measured, beside what the papers claim, and all methods by length."""
    if not evidence.claims and not evidence.lengths:
        return "# Evidence\n\nNo rows are recorded.\n"
    parts = ["# Evidence", _INTRO]
    if evidence.models:
        parts += ["## Models", _models(evidence.models)]
    if evidence.claims:
        parts += ["## Claims", table(_CLAIM_HEADER, [_claim(row) for row in evidence.claims])]
    if evidence.lengths:
        parts += ["## By length", *_lengths(evidence.lengths)]
    return "\n\n".join(parts) + "\n"


def evidence_of(method: str, evidence: Evidence) -> list[str]:
    """What was measured of one method, alone and in stacks: its claims, and for each model tables by length with the stock model beside."""
    parts = ["\n".join(_claim_in_words(row) for row in evidence.claims if row["method"] == method)]
    for model in dict.fromkeys(row["model"] for row in evidence.lengths):
        rows = [row for row in evidence.lengths if row["model"] == model]
        own = [row for row in rows if method in _named(row["method"])]
        if own:
            shown = [*(row for row in rows if row["method"] == _STOCK), *own]
            parts += [f"### {model}", f"Of {own[0]['condition']} models: `{own[0]['command']}`"]
            if not _is_encoder(rows):
                parts.append(f"{RISE}, nats a token, in the last octave of each length:")
                parts.append(_by_length(shown, "rise", loss_cell, lowest_first=True))
            if any(row["found"] is not None for row in own):
                title = _NEAREST if _is_encoder(rows) else "Needles found:"
                parts += [title, _by_length(shown, "found", found_cell, lowest_first=False)]
    return [part for part in parts if part]


def _claim_in_words(row: Cells) -> str:
    """One claim as an item of a list."""
    number = f"{_number(row['number'])} ({', '.join(part for part in (_range(row), row['of'], row['data']) if part)})"
    bar = f" The bar is {row['bar']}: the claim {_said(row['verdict'])}." if row["bar"] else f" The claim {_said(row['verdict'])}."
    here = f"{row['model']} under {row['setting']}: {row['metric']}: {number}"
    return f"- **The paper**, of {row['condition']} models: {row['paper_claim']}. **Here**, {here}.{bar} Measured by `{row['command']}`."


def _named(spec: str) -> list[str]:
    """The methods of a stack, without their settings."""
    return [part.partition(":")[0] for part in spec.split("+")]


def _models(rows: Sequence[Cells]) -> str:
    header = ("model", "architecture", "parameters", "layers", "heads (of keys)", "head size", "window", "trained on")
    cells = [
        (
            row["model"], row["family"], f"{row['parameters'] / 1e6:.1f}M", row["layers"], f"{row['heads']} ({row['kv_heads']})",
            row["head_dim"], row["window"], row["trained_on"],
        )
        for row in rows
    ]  # fmt: skip
    return table(header, cells)


def _claim(row: Cells) -> tuple[Any, ...]:
    marked = {"holds": "holds", "does not hold": "**does not hold**", "undecided": "*undecided*"}
    return (
        f"`{row['method']}`", row["paper_claim"], row["condition"], row["model"], row["setting"], row["metric"],
        _number(row["number"]), _range(row), f"{row['of']}, {row['data']}" if row["of"] else row["data"], row["bar"],
        marked.get(row["verdict"], row["verdict"]), f"`{row['command']}`",
    )  # fmt: skip


def _range(row: Cells) -> str:
    low, high = row["low"], row["high"]
    if low is None and high is None:
        return "none"
    return "exact" if low == high else f"{_number(low)} to {_number(high)}"


def _number(value: Any) -> str:
    """None is an end without bound."""
    return "any" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _lengths(rows: Sequence[Cells]) -> list[str]:
    """Two tables for each model: loss, and retrieval or, where none was measured, the loss itself; for an encoder retrieval alone."""
    parts = [
        "All methods that need no training, each with its first suggestion for the length; at the trained window (1x) with that for the "
        "longest length, so that what it costs short texts shows. The tables name each by that setting. Where models were tuned, each was "
        "tuned for the longest length and is read at all of them. Speed depends on the machine: `benchmarks/speed.py` compares it."
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == model]
        texts, prompts = (max(row[name] for row in own) for name in ("texts", "prompts"))
        data, command = own[0]["data"], own[0]["command"]
        parts.append(f"### {model}")
        if _is_encoder(own):
            parts += [
                f"`{command}`: {prompts} queries at each length, each for one of the documents made of {data}. The stock model reads the "
                f"first {own[0]['window']} tokens of a document; methods read all of it.",
                _NEAREST,
                _by_length(own, "found", found_cell, lowest_first=False),
            ]
        elif own[0]["condition"] != "trained":
            tuned = own[0]["condition"] == "tuned"
            models = "one model, tuned under each method on as many tokens; " if tuned else ""
            stock = "untuned stock model" if tuned else "stock model"
            parts += [
                f"`{command}`: {models}{texts} texts of {data} and up to {prompts} questions at each length.",
                f"{RISE}, nats a token: of the last octave, above the {stock}'s loss on the same tokens read inside its window.",
                _by_length(own, "rise", loss_cell, lowest_first=True),
                "Needles found:",
                _by_length(own, "found", found_cell, lowest_first=False),
            ]
        else:
            parts += [
                f"`{command}`: a model for each method, trained as the table of models says; {texts} texts of {data}.",
                "Loss of the last octave, nats a token:",
                _by_length(own, "loss", lambda row: f"{row['loss']:.3f}", lowest_first=True),
                f"{RISE}: the same above that of the same model on the same tokens read inside its window.",
                _by_length(own, "rise", loss_cell, lowest_first=True),
            ]
            if any(row["found"] is not None for row in own):
                parts += [f"Needles found, of up to {prompts} questions:", _by_length(own, "found", found_cell, lowest_first=False)]
    return parts


def _is_encoder(rows: Sequence[Cells]) -> bool:
    """Whether the model finds documents and has no loss of text: none was read for it."""
    return not any(row["texts"] for row in rows)


def _by_length(rows: Sequence[Cells], value: str, cell: Any, *, lowest_first: bool) -> str:
    """A line for each method, the best at the longest length first, and a column for each length."""
    lengths = sorted({row["length"] for row in rows})
    found = {(row["method"], row["length"]): row for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))

    def order(method: str) -> tuple[bool, float]:
        last = found[method, lengths[-1]][value]
        return last is None, 0.0 if last is None else last if lowest_first else -last

    cells = [
        (_method(found[method, lengths[-1]]), *(cell(found[method, length]) for length in lengths)) for method in sorted(methods, key=order)
    ]
    return table(("method", *(f"{_times(rows[0], length)} ({length})" for length in lengths)), cells)


def _method(row: Cells) -> str:
    name = f"`{row['setting']}`" if row["setting"] else row["method"]
    _, _, note = row["method"].partition(", ")  # as in `focused, untrained`
    notes = [each for each in (note if row["setting"] else "", "forgets" if row["forgets"] else "") if each]
    return f"{name} ({', '.join(notes)})" if notes else name


def _times(row: Cells, length: int) -> str:
    return f"{length / row['window']:g}x"


def loss_cell(row: Cells | None) -> str:
    """`+0.108 ± 0.020`."""
    if row is None or row["rise"] is None:
        return _MISSING
    half = "" if row["rise_high"] is None else f" ± {row['rise_high'] - row['rise']:.3f}"
    return f"{round(row['rise'], 3) + 0.0:+.3f}{half}"  # + 0.0: what rounds to nothing has no minus


def found_cell(row: Cells | None) -> str:
    """`0.90 (0.70 to 0.97)`."""
    return _MISSING if row is None or row["found"] is None else f"{row['found']:.2f} ({row['found_low']:.2f} to {row['found_high']:.2f})"


def with_numbers(page: str, evidence: Evidence) -> str:
    """A page with what stands between its markers written anew.

    `<!-- rise yarn 8x nano -->...<!-- /rise -->`: a loss, `found`: a share, by method, multiple of the window and model.
    `<!-- reach nano -->`: how far each method goes. `<!-- claims interpolated_positions -->`: all that its claims were held to.

    Raises: ValueError for a marker that names no method, or a length that is none.
    """
    return _MARKED.sub(lambda match: f"<!-- {match[1]} {match[2]} -->{_written(match[1], match[2], evidence)}<!-- /{match[1]} -->", page)


def _written(kind: str, words: str, evidence: Evidence) -> str:
    if kind == "reach":
        return f"\n{_reach([row for row in evidence.lengths if row['model'] == words])}\n"
    method, *rest = words.split()
    if unknown := [name for name in _named(method) if name != "stock" and name not in registry.names()]:
        raise ValueError(f"the marker <!-- {kind} {words} --> names no method: {', '.join(unknown)}")
    if kind == "claims":
        return "; ".join(_in_words(row) for row in evidence.claims if row["method"] == method) or _MISSING
    times, model = rest
    wanted = (_STOCK if method == "stock" else method, float(times.removesuffix("x")), model)
    row = next((row for row in evidence.lengths if (row["method"], row["length"] / row["window"], row["model"]) == wanted), None)
    return loss_cell(row) if kind == "rise" else found_cell(row)


def _in_words(row: Cells) -> str:
    return f"{row['metric']}, on {row['model']}: {_number(row['number'])} ({_range(row)}), so the claim {_said(row['verdict'])}"


def _said(verdict: str) -> str:
    return f"is {verdict}" if verdict == "undecided" else verdict


def _reach(rows: Sequence[Cells]) -> str:
    """How far loss and retrieval keep to the bars, that of retrieval following from what the stock model finds inside its window."""
    if not rows:
        return f"No rows are recorded for this model: {_MISSING}."
    first, lines = rows[0], []
    bar = KEEPS * max((row["found"] or 0.0 for row in rows if row["method"] == _STOCK and row["length"] == row["window"]), default=1.0)
    for method in dict.fromkeys(row["method"] for row in rows):
        own = sorted((row for row in rows if row["method"] == method), key=lambda row: row["length"])
        beyond = [row for row in own if row["length"] > first["window"]]
        loss = _kept([(row["length"], row["rise"] is not None and row["rise"] <= RISE_BAR) for row in beyond])
        found = _kept([(row["length"], row["found"] is not None and row["found"] >= bar) for row in beyond])
        lines.append(
            (loss, found, (_method(own[-1]), *(_times(first, far) if far else "nowhere" for far in (loss, found)), loss_cell(own[0])))
        )
    lines.sort(key=lambda line: (-min(line[0], line[1]), -line[1], -line[0]))
    header = ("method", f"loss within {RISE_BAR} to", f"{bar:.2f} of needles to", "loss inside the window")
    return table(header, [cells for *_, cells in lines])


def _kept(lengths: Sequence[tuple[int, bool]]) -> int:
    """The longest length up to which all keep to the bar; 0 for none."""
    far = 0
    for length, good in lengths:
        if not good:
            break
        far = length
    return far


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
