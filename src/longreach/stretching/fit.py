"""Fits a method to a model: every evaluation is a row, so that a stopped fit goes on, and the result is proven on other text."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import longreach
from longreach.core import registry
from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.core.fitting import FORMAT, Bench, BudgetSpent, Fit, FittedFile, check_place, write_fitted
from longreach.core.lengths import parse_length
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import make, parse_settings
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import CHUNK, check_eval, token_losses
from longreach.engine.apply import apply, given_model
from longreach.engine.biased import sharpness
from longreach.engine.fingerprint import fingerprint
from longreach.engine.rope_config import rope_of
from longreach.engine.rotation import differentiable
from longreach.engine.window import stated_window
from longreach.evaluation.measure import name_of, usual_batch_size
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.text import Ids, cut_windows
from longreach.positions.base import PositionsMethod, Rope
from longreach.training.chunked_loss import chunked_loss

_MOST_WINDOWS = 4  # each evaluation reads all of them
_TASK = "fit"  # what its rows are called


class Fitted(dict[str, Any]):
    """What was found, in plain JSON values: `format`, `method`, `fitted`, how it was found, and `results` on other text."""

    @property
    def method(self) -> Method:
        """The method with what was found as its setting `file`."""
        return make(registry.get(self["method"], acts_on="model"), {"file": FittedFile.of(self["method"], self)})

    def write(self, path: str | Path) -> None:
        """Write the file, which the method then takes as `file=PATH`. Raises: InputError where it cannot be written."""
        check_place(Path(path))
        write_fitted(Path(path), self)


def fit_of(spec: str) -> Fit:
    """How to fit the method that a spec names, with the settings of the fit: `longrope:population=16`.

    Raises: SpecError where it does not parse; InputError for a method that needs no fitting.
    """
    name, settings = parse_settings(spec)
    module = registry.module(name, acts_on="model")
    if not (hasattr(module, "METHOD") and module.METHOD.info.fitted):
        known = sorted(each.name() for each in registry.methods() if each.info.fitted)
        raise InputError(f"{name} has nothing to fit: it is ready to use; methods that are fitted: {', '.join(known)}")
    fit: Fit = make(module.FIT, settings)
    return fit


def check(*, windows: int | None, seed: int, **numbers: float | None) -> None:
    """Refuse, before a model is loaded, what `fit` would refuse.

    Raises: InputError for a number out of range.
    """
    for option, number, least in (("seed", seed, 0), ("windows", windows, 1), *((option, number, 1) for option, number in numbers.items())):
        if number is not None and number < least:
            raise InputError(f"{option}={number} must be at least {least}")


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    method: str,
    *,
    to: int | str,
    text: str | None = None,
    windows: int | None = None,
    evaluations: int | None = None,
    seconds: float | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    batch_size: int | None = None,
    name: str | None = None,
    rows: Rows | str | Path | None = None,
    progress: Progress = SILENT,
) -> Fitted:
    """Find what a method needs to know of a model, for texts of `to` tokens.

    Returns: the contents of the file that the method takes as its setting `file`. `.method` is the method with them, to be applied;
    `.write(path)` writes the file.

    Of windows of text, evenly spread, every second one is only read at the end, to compare the result with the model as it is and with
    methods that need no fitting: `results`, in nats a token, `inside` the trained window and `beyond` it; or, where another `metric` is
    what the method is fitted by, that metric at the lengths of the window and of the target.

    Args: method: its name, with settings of its fit. to: tokens, beyond the trained window. windows: to fit on (default: 4, or 2 or 1 where
    the text is short). evaluations: to spend, those found among the rows included. seconds: to spend in this run. Without both, the method
    makes as many as it wants. seed: of everything random. The others are those of `measure`; encoders read windows whole and one at a time,
    so `chunk_size` and `batch_size` are refused for methods that are fitted to them.

    Raises: InputError or SpecError for what does not fit; UnsupportedError for a model that the method cannot work on. Evaluations
    made until then stay in `rows`.
    """
    model, to = given_model(model), parse_length(to)
    work, name, text = fit_of(method), name or name_of(model), stdlib_text("held-out") if text is None else text
    check(windows=windows, seed=seed, chunk_size=chunk_size, batch_size=batch_size, evaluations=evaluations, seconds=seconds)
    check_eval(model)
    window = work.stated_window() or stated_window(model.config)
    if window is None:
        stated = f"; give it in tokens, as {work.name()}:window_size=512" if hasattr(work, "window_size") else ""
        raise InputError(f"the config ({model.config.model_type}) states no trained window{stated}")
    if to <= window:
        raise InputError(f"nothing to fit: {to} tokens are within the trained window of {window}; give a greater length")
    settings = _settings(model, work, chunk_size, batch_size)
    texts = _texts(Encoder(tokenizer), text, to, windows)
    row = Row(task=_TASK, model=name, method="", length=0, version=longreach.__version__, settings=settings)
    bench = _FitBench(model, tokenizer, window, to, seed, _Reader(model, row, Rows.of(rows), progress), texts[::2])
    bench.limit(evaluations, seconds)
    try:
        found = {"format": FORMAT, "method": work.name(), "fitted": work.run(bench)}
    except UnsupportedError as error:  # say it of what the user asked for
        raise UnsupportedError(work.name(), error.model, error.why, error.try_instead) from None
    told = {
        "longreach": longreach.__version__, "model": name, "weights": settings["weights"], "trained_window": window, "target": to,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(), "windows": len(texts[::2]), "fit": work.spec, "seed": seed,
        "evaluations": bench.evaluations, "metric": work.metric, "results": _results(bench, work, found, texts[1::2]),
    }  # fmt: skip
    return Fitted({**found, **told})


def _settings(model: PreTrainedModel, work: Fit, chunk_size: int | None, batch_size: int | None) -> dict[str, Any]:
    """What its rows say of the model and of how it is read."""
    settings = {"weights": fingerprint(model), "dtype": str(model.dtype).removeprefix("torch."), "device": model.device.type}
    if work.metric == "loss":
        chunk_size = chunk_size or CHUNK
        return settings | {"chunk_size": chunk_size, "batch_size": batch_size or usual_batch_size(model, chunk_size)}
    if chunk_size is not None or batch_size is not None:
        raise InputError(f"chunk_size and batch_size have no effect on {work.name()}: an encoder reads windows whole, one at a time")
    return settings


def _texts(encoder: Encoder, text: str, to: int, windows: int | None) -> list[Ids]:
    """Windows of `to` tokens, special ones included: to fit on, and after each one to compare on."""
    length = to - len(encoder.prefix)
    cuts = cut_windows(encoder, text, length, None if windows is None else 2 * windows, least=2, most=2 * _MOST_WINDOWS)
    return [np.concatenate([np.array(encoder.prefix, dtype=np.int32), cut]) for cut in cuts]


def _results(bench: "_FitBench", work: Fit, found: dict[str, Any], texts: Sequence[Ids]) -> list[dict[str, Any]]:
    """What other text says of the model as it is, of methods that need no fitting, and of what was found."""
    fitted: Method = make(registry.get(work.name(), acts_on="model"), {"file": FittedFile.of(work.name(), found)})
    others = work.baselines(bench.trained_window, bench.target)
    stacks: list[tuple[str, Method | None]] = [("", None), *((other.spec, other) for other in others), (work.name(), fitted)]
    bench.reader.start("other text", len(stacks), texts, bench.target)
    lengths = (bench.trained_window, bench.target)
    if work.metric == "loss":
        pairs = [(label, bench.reader.losses(method, texts, (0, *lengths))) for label, method in stacks]
    else:
        pairs = [(label, [bench.reader.sharpness(method, texts, each, work.metric) for each in lengths]) for label, method in stacks]
    return [{"method": label, "inside": inside, "beyond": beyond} for label, (inside, beyond) in pairs]


class _Reader:
    """Reads texts under methods. What was read once is found among the rows."""

    def __init__(self, model: PreTrainedModel, row: Row, rows: Rows, progress: Progress) -> None:
        self.model, self.row, self.rows, self.progress = model, row, rows, progress
        self._bar: tuple[str, int] | None = None

    def start(self, label: str, readings: int, texts: Sequence[Ids], length: int) -> None:
        """So many readings are to come. The bar begins with the first that is not found among the rows."""
        self._bar = (label, readings * len(texts) * length)

    def losses(self, method: Method | None, texts: Sequence[Ids], edges: Sequence[int]) -> list[float]:
        """Nats a token over all texts, for the tokens between each edge and the next; nothing is read beyond the last one."""
        length = edges[-1]
        wanted = [self._row(method, texts, end, length, start=start) for start, end in pairwise(edges)]

        def read() -> list[float]:
            per_text = self._read(method, texts, length)
            # Nothing stands before the first token, and the loss at index i is that of token number i + 2.
            parts = [slice(max(row.settings["start"], 1) - 1, row.length - 1) for row in wanted]
            return [fmean(losses[part].mean().item() for losses in per_text) for part in parts]

        return self._known_or(wanted, len(texts) * length, read)

    def sharpness(self, method: Method | None, texts: Sequence[Ids], length: int, metric: str) -> float:
        """Of an encoder's attention in all whole pieces of `length` tokens (engine/biased.py)."""
        pieces = [text[start : start + length] for text in texts for start in range(0, len(text) - length + 1, length)]

        def read() -> list[float]:
            found = []
            with apply(self.model, method, warn=False), _memory(f"{length} tokens at once", "a smaller length"):
                for piece in pieces:
                    found.append(sharpness(self.model, torch.from_numpy(piece[None]).long(), metric))
                    self.progress.advance(length)
            if not all(map(math.isfinite, found)):
                raise LongreachError(f"{metric} is not a finite number; load the model with another dtype (float32)")
            return [fmean(found)]

        (value,) = self._known_or([self._row(method, pieces, length, length, metric=metric)], len(pieces) * length, read)
        return value

    def _row(self, method: Method | None, texts: Sequence[Ids], end: int, length: int, **settings: Any) -> Row:
        digest = hashlib.sha256(b"".join(text[:length].tobytes() for text in texts)).hexdigest()[:16]
        return replace(
            self.row, method=method.spec if method else "", length=end, n=len(texts) * end,
            settings={**self.row.settings, "input": digest, **settings},
        )  # fmt: skip

    def _known_or(self, wanted: Sequence[Row], tokens: int, read: Callable[[], list[float]]) -> list[float]:
        """The scores of the wanted rows, as they were found before, or by reading so many tokens."""
        known = [self.rows.get(row) for row in wanted]
        if None in known:
            if self._bar is not None:
                self.progress.start(*self._bar)
                self._bar = None
            self.rows.append(replace(row, score=score) for row, score in zip(wanted, read(), strict=True))
            known = [self.rows.get(row) for row in wanted]
        elif self._bar is not None:
            label, total = self._bar
            self._bar = (label, max(1, total - tokens))
        return [row.score for row in known if row is not None and row.score is not None]

    def slopes(self, method: PositionsMethod, rope: Rope, text: Ids, length: int) -> tuple[float, list[float]]:
        """The loss over the first `length` tokens of a text, and its derivatives by the method's frequencies: a row for each."""
        digest = hashlib.sha256(text[:length].tobytes()).hexdigest()[:16]
        shared = {**self.row.settings, "input": digest, "start": 0, "precision": "with gradients"}
        common = replace(self.row, method=method.spec, length=length, n=length, settings=shared)
        wanted = [replace(common, settings={**shared, "derivative": pair}) for pair in (None, *range(rope.dim // 2))]
        known = [self.rows.get(row) for row in wanted]
        if None in known:
            if self._bar is not None:
                self.progress.start(*self._bar)
                self._bar = None
            self.rows.append(
                replace(row, score=score) for row, score in zip(wanted, self._differentiate(method, rope, text[:length]), strict=True)
            )
            known = [self.rows.get(row) for row in wanted]
        loss, *derivatives = (row.score for row in known if row is not None and row.score is not None)
        return loss, derivatives

    def _differentiate(self, method: PositionsMethod, rope: Rope, text: Ids) -> list[float]:
        inv_freq, factor = method.inv_freq(rope, rope.trained_window)
        leaf, ids = inv_freq.to(self.model.device).requires_grad_(), torch.from_numpy(text).long()[None].to(self.model.device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained:
            parameter.requires_grad_(False)
        try:
            with differentiable(self.model, leaf, factor), torch.enable_grad():
                inputs = {"input_ids": ids, "labels": ids, "use_cache": False}
                chunked = chunked_loss(self.model, self.model, text, leaves=[leaf])
                loss = self.model(**inputs).loss if chunked is None else chunked(self.model, inputs)
                loss.backward()
        finally:
            for parameter in trained:
                parameter.requires_grad_()
        self.progress.advance(len(text))
        found = [loss.item(), *(leaf.grad.tolist() if leaf.grad is not None else [])]
        if not all(map(math.isfinite, found)):
            raise LongreachError(
                "the loss or its gradient is not a finite number; load the model with another dtype (float32), or take smaller steps"
            )
        return found

    def _read(self, method: Method | None, texts: Sequence[Ids], length: int) -> list[torch.Tensor]:
        size, chunk = self.row.settings["batch_size"], self.row.settings["chunk_size"]
        found: list[torch.Tensor] = []
        what = f"{size} windows of {length} tokens at once, {chunk} tokens a forward"
        with apply(self.model, method, warn=False), _memory(what, "a smaller batch size, chunk size or length"):
            for start in range(0, len(texts), size):
                ids = torch.stack([torch.from_numpy(text[:length]) for text in texts[start : start + size]]).long()
                found += token_losses(self.model, ids.to(self.model.device), chunk_size=chunk, progress=self.progress)
        if not all(bool(losses.isfinite().all()) for losses in found):
            raise LongreachError("the loss is not a finite number; load the model with another dtype (float32)")
        return found


@contextmanager
def _memory(what: str, instead: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LongreachError(f"the device's memory is too small for {what}; use {instead}") from error


class _FitBench(Bench):
    """Counts what a fit spends."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        window: int,
        target: int,
        seed: int,
        reader: _Reader,
        texts: Sequence[Ids],
    ) -> None:
        self.model, self.tokenizer, self.trained_window, self.target, self.seed = model, tokenizer, window, target, seed
        self.reader, self.texts = reader, texts
        self.evaluations = 0
        self._most = self._deadline = self._phase_deadline = self._phase_most = math.inf
        self._least, self._label, self._planned = 0, "", 0

    def limit(self, evaluations: int | None, seconds: float | None) -> None:
        """Spend no more than that from now on."""
        if evaluations is not None:
            self._most = self.evaluations + evaluations
        if seconds is not None:
            self._deadline = time.monotonic() + seconds

    def rope(self) -> Rope:
        """The model's rotary embedding."""
        return rope_of(self.model.config)

    def begin(self, label: str, evaluations: int, *, least: int = 1, share: float = 1.0) -> None:
        """Allot a share of what is left."""
        now = time.monotonic()
        self._least = self.evaluations + least
        self._phase_most = self.evaluations + (self._most - self.evaluations) * share
        self._phase_deadline = now + (self._deadline - now) * share
        left = self._phase_deadline - now
        self._label = label if left == math.inf else f"{label} (stops after {max(left, 0) / 60:.0f} min)"
        self._planned = int(min(evaluations, max(least, self._phase_most - self.evaluations)))

    def loss(self, method: Method, length: int) -> float:
        """Nats a token."""
        self._spend(self.texts, length)
        (loss,) = self.reader.losses(method, self.texts, (0, length))
        return loss

    def slopes(self, method: Method, length: int, window: int) -> tuple[float, list[float]]:
        """Nats a token, and its derivatives."""
        text = self.texts[window % len(self.texts)]
        self._spend([text], length)
        return self.reader.slopes(method, self.rope(), text, length)  # type: ignore[arg-type]  # a method with frequencies

    def sharpness(self, method: Method | None, length: int, metric: str) -> float:
        """Of the encoder's attention."""
        self._spend(self.texts, length)
        return self.reader.sharpness(method, self.texts, length, metric)

    def _spend(self, texts: Sequence[Ids], length: int) -> None:
        """One more evaluation, which reads so many tokens of each window."""
        if self.evaluations >= self._least and (self.evaluations + 1 > self._phase_most or time.monotonic() > self._phase_deadline):
            raise BudgetSpent
        if self._label:
            self.reader.start(self._label, self._planned, texts, length)
            self._label = ""
        self.evaluations += 1
