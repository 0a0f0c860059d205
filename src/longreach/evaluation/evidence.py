"""Evidence for the docs: what was measured of methods on one model, paired by text and by prompt, with intervals and verdicts."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError
from longreach.core.files import write_text
from longreach.core.method import Claim
from longreach.core.progress import SILENT, Progress
from longreach.engine import window
from longreach.engine.apply import apply
from longreach.evaluation.intervals import Interval, share_interval
from longreach.evaluation.measure import measure, octaves, parse_tasks
from longreach.evaluation.readings import can_share
from longreach.evaluation.rows import Row, Rows, by_text
from longreach.evaluation.usable import METRIC

WINDOWS = 8  # texts; methods are compared text by text, which needs few
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")  # of a model, and so of its files
_CARD_DATA = re.compile(r"^- Data: (.+?)(?=\n(?:- |\n|#)|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number that was measured. Args: spec: of what. interval: of no width for what is no estimate. of: what it is the mean of."""

    spec: str
    interval: Interval
    of: str


class Subject:
    """A model that methods are compared on. Everything is measured on the same texts and prompts, or found in `rows`.

    Args: name: of the model, as rows are to call it. to: longest length in tokens, beyond the trained window. text: real text.
    windows: texts of that length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        to: int,
        text: str,
        windows: int = WINDOWS,
        rows: Rows | None = None,
        progress: Progress = SILENT,
    ) -> None:
        self.model, self.to, self.window = model, to, window.window_before_export(model)
        if to <= self.window:
            raise InputError(f"nothing to compare: {to} tokens are within the trained window of {self.window}; give a greater length")
        self.edges = octaves(self.window, to)
        self._common: dict[str, Any] = {
            "name": name, "to": to, "text": text, "windows": windows, "trained_window": self.window, "within_reach": True,
            "rows": Rows() if rows is None else rows, "progress": progress,
        }  # fmt: skip
        self.tokenizer = tokenizer
        self._known: dict[object, list[Row]] = {}
        self._sharing: dict[str, bool] = {}

    def loss_rows(self, spec: str, end: int | None = None) -> list[Row]:
        """A row for each text and octave up to `end`, as far as the model can read."""
        return self._measured("loss", method=spec, lengths=tuple(edge for edge in self.edges if edge <= (end or self.to)))

    def losses(self, spec: str, *, start: int = 0, end: int | None = None) -> dict[str, float]:
        """By text: nats a token after token number `start`, up to `end`; empty where the model cannot read so far."""
        return self._between(self.loss_rows(spec, end), start, end or self.to)

    def standard(self, *, start: int, end: int | None = None) -> dict[str, float]:
        """By text: what the model as it is loses on the same tokens, never reading more than its window at once."""
        inside = self._measured(f"loss_inside:window_size={self.window}")
        return self._between([*self.loss_rows("", self.window), *inside], start, end or self.to)

    def rises(self, spec: str, *, start: int | None = None, end: int | None = None) -> dict[str, float]:
        """By text: the loss above the standard, from the trained window on where `start` is not given."""
        start = self.window if start is None else start
        standard = self.standard(start=start, end=end)
        return {text: loss - standard[text] for text, loss in self.losses(spec, start=start, end=end).items()}

    def answers(self, spec: str, length: int, samples: int) -> dict[str, bool]:
        """By question after `length` tokens: whether the needle was found; empty where the model cannot read so far.

        Args: samples: questions of each depth, over all texts. A text is shared by its questions where the method allows that.
        """
        if self.shares(spec):
            rows = self.read(spec, (length,), samples)
        else:
            rows = self._measured("needle", method=spec, lengths=(length,), samples=samples) if self._readable(spec, length) else []
        return {row.settings["input"]: bool(row.score) for row in rows if row.length == length and row.settings["metric"] == METRIC}

    def read(self, spec: str, lengths: Sequence[int], samples: int) -> list[Row]:
        """Read each text once for its loss and for all questions of these lengths, as far as the model can read; args as of `answers`."""
        readable = tuple(length for length in lengths if self._readable(spec, length))
        each = math.ceil(samples / self._common["windows"])
        return self._measured("loss+needle:shared=true", method=spec, lengths=readable, samples=each) if readable else []

    def _readable(self, spec: str, length: int) -> bool:
        limit = window.position_limit(self.model)
        return bool(spec) or limit is None or length <= limit

    def shares(self, spec: str) -> bool:
        """Whether a text can be read once for all questions under this method."""
        if spec not in self._sharing:
            with apply(self.model, spec, warn=False):
                self._sharing[spec] = can_share(self.model)
        return self._sharing[spec]

    def _measured(self, task: str, **plan: Any) -> list[Row]:
        """The rows of one task, which are looked up once."""
        key = (task, *plan.items())
        if key not in self._known:
            self._known[key] = measure(self.model, self.tokenizer, tasks=parse_tasks(task), **self._common, **plan)
        return self._known[key]

    def _between(self, rows: Sequence[Row], start: int, end: int) -> dict[str, float]:
        kept = [row for row in rows if row.settings["start"] >= start and row.length <= end]
        return by_text(kept) if any(row.length == end for row in kept) else {}


def found_share(answers: Mapping[str, bool]) -> Interval:
    """Share of the prompts that were answered."""
    return share_interval(sum(answers.values()), len(answers))


def counted(values: Sequence[Any] | Mapping[str, Any], what: str) -> str:
    """`8 texts`."""
    return f"{len(values)} {what}{'' if len(values) == 1 else 's'}"


def claim_row(method: str, claim: Claim, finding: Number, **facts: str) -> dict[str, Any]:
    """A row of the evidence table. Args: facts: model, data, setting, metric (in words), command."""
    return {
        "method": method,
        **facts,
        **bounds(finding.interval, "number", "low", "high"),
        "of": finding.of,
        "condition": claim.condition,
        "bar": claim.bounds,
        "paper_claim": claim.text,
        "verdict": claim.verdict(finding.interval.low, finding.interval.high),
    }


def bounds(interval: Interval, *names: str) -> dict[str, float | None]:
    """An interval as plain JSON values: None for an end that is infinite."""
    return {name: value if math.isfinite(value) else None for name, value in zip(names, interval, strict=True)}


def describe(model: PreTrainedModel, *, name: str, card: Path | None = None, trained_on: str | None = None) -> dict[str, Any]:
    """What a model is. Args: card: a model card whose line `- Data: ...` says what it was trained on. trained_on: says it instead.

    Raises: InputError for a name that cannot be a file's.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"the name {name!r} becomes a file's: use letters, digits, '.', '-' and '_'; give another with --name")
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    found = _CARD_DATA.search(card.read_text(encoding="utf-8")) if card is not None and card.is_file() else None
    return {
        "model": name,
        "family": config.model_type,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": config.num_hidden_layers,
        "heads": heads,
        "kv_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_dim": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "window": window.window_before_export(model),
        "trained_on": trained_on or (" ".join(found[1].split()) if found else "not stated"),
    }


def write(folder: Path, facts: dict[str, Any], rows: Sequence[dict[str, Any]], kind: str = "", *, file: str = "") -> Path:
    """Write the rows of one model to FOLDER/KIND/MODEL.jsonl, and what the model is to FOLDER/models/MODEL.json; returns the former.

    Args: file: name for that of the rows, where another command writes those in MODEL.jsonl.
    Raises: InputError where they cannot be written.
    """
    path = folder / kind / f"{file or facts['model']}.jsonl"
    texts = {path: "".join(f"{json.dumps(row)}\n" for row in rows), folder / "models" / f"{facts['model']}.json": f"{json.dumps(facts)}\n"}
    try:
        for place, text in texts.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, text)
    except OSError as error:
        raise InputError(f"cannot write evidence to {folder}: {error.strerror}") from error
    return path
