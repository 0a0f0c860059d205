"""Finds the method that lets a model reach a length: candidates are screened, the best ones measured in full, and a rule chooses."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.core.lengths import parse_length
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import parse, split_specs
from longreach.data.stdlib import stdlib_text
from longreach.decoding.reading import CHUNK
from longreach.engine import window
from longreach.engine.apply import given_model
from longreach.evaluation import measure as measuring
from longreach.evaluation.measure import DEPTHS, SAMPLES, measure, name_of, parse_tasks
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.text import Encoder, cut_windows
from longreach.stretching.candidates import AUTO, Candidate, applicable, collect, improved
from longreach.stretching.choice import RULES, TUNED_RULE, Choice, Purpose, Standing, choose, label, screening_order, standing

TASKS: dict[Purpose, tuple[str, ...]] = {"recall": ("needle", "loss"), "streaming": ("loss",)}  # what a method is judged by
FINALISTS = 3
_SEMIFINALISTS = 2  # for each finalist, where there are more than that to try
_MOST_WINDOWS = 8  # losses are compared token by token, which needs fewer texts than a loss by itself
_SCREENING = 2  # windows of text, and prompts of each depth and length
NO_TIME = "the time budget was spent before its turn"
_SHARES = (0.35, 0.5, 0.65)  # of a time budget: spent at most when the first look, that at stacks, and the screening end


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured. Args: windows: of text, for the loss. samples: prompts of each length and depth. lengths: of prompts."""

    windows: int
    samples: int = SAMPLES
    depths: tuple[float, ...] = DEPTHS
    lengths: tuple[int, ...] | None = None

    def glance(self, lengths: tuple[int, ...]) -> "Budget":
        """The least that tells methods apart: a prompt of each depth, at a few lengths."""
        return replace(self.screening(), samples=1, lengths=lengths)

    def screening(self) -> "Budget":
        """A small part of it, so that what screening measures is not measured again: the beginning and the middle of the text."""
        depths = sorted({self.depths[0], self.depths[len(self.depths) // 2]})
        return Budget(windows=min(_SCREENING, self.windows), samples=min(_SCREENING, self.samples), depths=tuple(depths))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found.

    Args: standings: the model as it is first, unless it cannot read so far, then what was measured in full, then what was only screened,
    each from good to bad.
    refused: label -> why it cannot be applied to this model. rows: everything measured that the standings are drawn from.
    """

    model: str
    trained_window: int
    target: int
    purpose: Purpose
    choice: Choice
    standings: tuple[Standing, ...]
    refused: dict[str, str]
    rows: tuple[Row, ...]
    budget: Budget
    seed: int
    text_sha256: str

    @property
    def rule(self) -> str:
        """How the choice was made."""
        tuned = any(one.tuned for one in self.standings)
        return f"{RULES[self.purpose]} {TUNED_RULE}" if tuned else RULES[self.purpose]

    @property
    def chosen(self) -> str | None:
        """The spec of the method that is good enough ("" for the model as it is), None where none is."""
        return self.choice.best.method if self.choice.good_enough and self.choice.best is not None else None


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A model that was trained under a positions method.

    Args: method: its spec. steps: at least 1. lost: in words, why it may not be called extended; empty where nothing says so.
    """

    model: PreTrainedModel
    method: str
    steps: int
    lost: str = ""


Tuner = Callable[[Sequence[str], Progress], Trained]  # specs of positions methods, the most promising first -> trained under one of them


def stretch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    to: int | str,
    text: str | None = None,
    methods: str | Sequence[str | Method] = (AUTO,),
    purpose: Purpose = "recall",
    finalists: int = FINALISTS,
    seconds: float | None = None,
    tuner: Tuner | None = None,
    trained_window: int | None = None,
    windows: int | None = None,
    samples: int | None = None,
    depths: Sequence[float] | None = None,
    seed: int | None = None,
    chunk_size: int | None = None,
    batch_size: int | None = None,
    name: str | None = None,
    rows: Rows | str | Path | None = None,
    progress: Progress = SILENT,
) -> Outcome:
    """Find the method that lets a model reach a length: measure it as it is and under each candidate, and choose.

    Returns: what was found; `.chosen` is the spec to apply or to save with, None where nothing is good enough.

    Args: to: tokens to reach. methods: what to try: `auto`, names or specs. purpose: recall (the whole text can be asked about) or
    streaming (it reads on and on). finalists: how many are measured in full where there are more. seconds: time to spend, more or less:
    with less than it takes, fewer methods are tried, and at least one in full. tuner: trains the model, in place, once all else is
    measured; what it makes is measured, too, alone and with what improves it, and its time does not count. windows: texts for the loss
    (default: 8, or 4 or 2 where the text is short). The others are those of `measure`.

    Raises: InputError for what does not fit; UnsupportedError for a method in `methods` that the model does not take. What was measured
    stays in `rows`.
    """
    model, to = given_model(model), parse_length(to)
    if trained_window is not None and trained_window < 1:
        raise InputError(f"trained_window={trained_window} must be at least 1")
    if seconds is not None and not seconds > 0:
        raise InputError(f"seconds={seconds} must be above 0")
    if purpose not in TASKS:
        raise InputError(f"purpose={purpose!r}: choose {' or '.join(TASKS)}")
    trained, name = trained_window or window.window_of(model), name or name_of(model)
    text = stdlib_text("held-out") if text is None else text
    wanted = split_specs([methods] if isinstance(methods, str) else map(str, methods))
    if to <= trained:
        raise InputError(f"nothing to stretch: {to} tokens are within the trained window of {trained}; give a greater length")
    check(
        text=text, purpose=purpose, finalists=finalists, windows=windows, samples=samples, depths=depths, seed=seed,
        chunk_size=chunk_size, batch_size=batch_size,
    )  # fmt: skip
    fitting, refused = applicable(model, collect(wanted, trained, to))
    if not fitting:
        raise InputError(f"no method can be applied to {name}: " + "; ".join(f"{spec}: {why}" for spec, why in refused.items()))
    budget = Budget(
        windows=_count_windows(tokenizer, text, to, windows),
        samples=SAMPLES if samples is None else samples,
        depths=DEPTHS if depths is None else tuple(sorted(depths)),
    )
    common = {
        "name": name, "to": to, "text": text, "trained_window": trained, "chunk_size": CHUNK if chunk_size is None else chunk_size,
        "batch_size": batch_size, "rows": Rows.of(rows),
    }  # fmt: skip
    bench = _Tournament(model, tokenizer, common, purpose, budget, seed or 0, progress, _Clock(seconds))
    stock = bench.stock(refused)
    standings = (*stock, *bench.tournament(fitting, refused, finalists, widen=AUTO in wanted))
    if tuner is not None:
        others = [*bench.tuned(tuner, standings, refused), *standings[len(stock) :]]
        full = [one for one in others if not one.screened]
        standings = (*stock, *screening_order(full), *(one for one in others if one.screened))
    return Outcome(
        model=name,
        trained_window=trained,
        target=to,
        purpose=purpose,
        choice=choose(standings, purpose, to),
        standings=standings,
        refused=refused,
        rows=tuple(bench.rows_of(standings)),
        budget=budget,
        seed=seed or 0,
        text_sha256=sha256(text.encode()).hexdigest(),
    )


def check(*, text: str | None, purpose: Purpose, **options: Any) -> None:
    """Refuse, before a model is loaded, what `stretch` would refuse: options that are out of range or have no effect on the purpose.

    Raises: InputError.
    """
    measuring.check(parse_tasks("+".join(TASKS[purpose])), text=text, **options)


class _Tournament:
    """Measures candidates under equal conditions, and remembers the rows of each."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        common: dict[str, Any],
        purpose: Purpose,
        budget: Budget,
        seed: int,
        progress: Progress,
        clock: "_Clock",
    ) -> None:
        self.model, self.tokenizer, self.common = model, tokenizer, common
        self.purpose, self.budget, self.seed = purpose, budget, seed
        self.progress, self.clock = progress, clock
        self.trained: Trained | None = None
        self.found: dict[str, list[Row]] = {}
        self.standard: list[Row] = []
        self.inside: list[Row] = []
        self._measured, self._expected = 0, 0

    def tournament(self, fitting: Sequence[Candidate], refused: dict[str, str], finalists: int, *, widen: bool) -> list[Standing]:
        """Standings, the finalists' first. `refused` gets those that fail only when they run, and those for which there was no time.

        Where many are to be tried, all are glanced at, and the best of them screened. `widen`: also try stacks on the best.
        """
        if len(fitting) <= finalists:
            self._expected = len(fitting)
            return screening_order(self._stand_all(fitting, self.budget, refused, 1))
        count, by_spec = _SEMIFINALISTS * finalists, {candidate.spec: candidate for candidate in fitting}
        many = len(fitting) > count
        self._expected = len(fitting) + finalists + (count if many else 0)
        first = self.budget.glance(self._telling_lengths()) if many else self.budget.screening()
        ranked = screening_order(self._stand_all(fitting, first, refused, _SHARES[0]))
        if widen:
            stacks = self._stacks([by_spec[one.method] for one in self._able(ranked)[:count]], refused)
            by_spec |= {candidate.spec: candidate for candidate in stacks}
            self._expected += len(stacks)
            ranked = screening_order([*ranked, *self._stand_all(stacks, first, refused, _SHARES[1])])
        if many:
            again = self._stand_all([by_spec[one.method] for one in self._able(ranked)[:count]], self.budget.screening(), {}, _SHARES[2])
            seen = {one.method for one in again}
            ranked = [*screening_order(again), *(one for one in ranked if one.method not in seen)]
        missing: dict[str, str] = {}
        full = self._stand_all([by_spec[one.method] for one in self._able(ranked)[:finalists]], self.budget, missing, 1)
        failed = {spec: why for spec, why in missing.items() if why != NO_TIME}  # the others stand as they were screened
        refused |= failed
        done = {one.method for one in full} | failed.keys()
        return [*screening_order(full), *(one for one in ranked if one.method not in done)]

    def _able(self, ranked: Sequence[Standing]) -> list[Standing]:
        """Those that could win, in the same order."""
        return [one for one in ranked if self.purpose == "streaming" or not one.forgets]

    def _stacks(self, candidates: Sequence[Candidate], refused: dict[str, str]) -> list[Candidate]:
        """The candidates with what improves them on top."""
        found = {stack.spec: stack for candidate in candidates for stack in improved(candidate)}
        stacks, refusals = applicable(self.model, list(found.values()))
        refused |= refusals
        return stacks

    def _telling_lengths(self) -> tuple[int, int]:
        """The first length beyond the window, and the target."""
        return min(2 * self.common["trained_window"], self.common["to"]), self.common["to"]

    def tuned(self, tuner: Tuner, standings: Sequence[Standing], refused: dict[str, str]) -> list[Standing]:
        """Train the model under one of the positions methods that stand, and measure it alone and with what improves it on top."""
        first = [parse(one.method)[0] for one in standings if one.method]
        positions = [method.spec for method in first if method.kind == "positions"]
        with self.clock.stopped():
            self.trained = tuner(list(dict.fromkeys(positions)), self.progress)
        self.model = self.trained.model
        alone = Candidate(stack=parse(self.trained.method), tuned=self.trained.steps)
        candidates = [alone, *self._stacks([alone], refused)]
        self._expected += len(candidates)
        return self._stand_all(candidates, self.budget, refused, 1)

    def stand(self, candidate: Candidate, budget: Budget) -> Standing:
        """Measure one candidate."""
        stage = "" if budget == self.budget else ", screening"
        told = _Labelled(
            self.progress, f"{candidate.label or 'stock'} ({self._measured} of {self._expected}{stage})" if self._measured else "stock"
        )
        self._measured += 1
        common = {**self.common, "name": label(self.common["name"], candidate.tuned), "progress": told}
        rows: list[Row] = []
        for task in TASKS[self.purpose]:
            # Prompts take their text from the same windows in screening as in full, so that none is answered twice.
            plan = (
                {"windows": budget.windows}
                if task == "loss"
                else {
                    "windows": self.budget.windows,
                    "samples": budget.samples,
                    "depths": budget.depths,
                    "lengths": budget.lengths,
                    "seed": self.seed,
                }
            )
            rows += measure(self.model, self.tokenizer, tasks=parse_tasks(task), method=candidate.spec, **plan, **common)
        if candidate.tuned:
            standard = self.standard  # of the model as it was
        else:
            inside = parse_tasks(f"loss_inside:window_size={common['trained_window']}")
            standard = measure(self.model, self.tokenizer, tasks=inside, windows=budget.windows, **common)
        if budget == self.budget:
            self.standard = standard
        self.found[candidate.label] = rows
        return standing(
            rows,
            standard,
            method=candidate.spec,
            tuned=candidate.tuned,
            lost=self.trained.lost if candidate.tuned and self.trained is not None else "",
            trained_window=common["trained_window"],
            forgets=candidate.forgets,
            bounded_memory=candidate.bounded_memory,
            screened=budget != self.budget,
        )

    def stock(self, refused: dict[str, str]) -> list[Standing]:
        """The model as it is. One that cannot read to the target goes to `refused`, and its losses are measured as far as it reads."""
        limit = window.position_limit(self.model)
        if limit is None or self.common["to"] <= limit:
            return [self.stand(Candidate(), self.budget)]
        refused[""] = f"it {window.cannot_read(limit)}"
        common = {**self.common, "windows": self.budget.windows, "progress": _Labelled(self.progress, "stock")}
        self.inside = measure(self.model, self.tokenizer, tasks=parse_tasks("loss"), within_reach=True, **common)
        return []

    def rows_of(self, standings: Sequence[Standing]) -> list[Row]:
        """Every row that the standings are drawn from."""
        return [*self.standard, *self.inside, *(row for one in standings for row in self.found[label(one.method, one.tuned)])]

    def _stand_all(self, candidates: Sequence[Candidate], budget: Budget, refused: dict[str, str], share: float) -> list[Standing]:
        """The first, and the others as long as that share of the time is not spent."""
        standings: list[Standing] = []
        for candidate in candidates:
            if standings and not self.clock.has_time(share):
                refused[candidate.label] = NO_TIME
                continue
            begun = time.monotonic()
            try:
                standings.append(self.stand(candidate, budget))
            except LongreachError as error:
                if isinstance(error, InputError) or (isinstance(error, UnsupportedError) and candidate.named):
                    raise
                refused[candidate.label] = str(error)  # as logits that are not finite
            self.clock.last = time.monotonic() - begun
        return standings


class _Clock:
    """Watches a time budget. Args: seconds: None for no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.begun = seconds, time.monotonic()
        self.last = 0.0  # seconds that the last candidate took

    def has_time(self, share: float) -> bool:
        """Whether one more candidate fits into that share of the budget."""
        return self.seconds is None or time.monotonic() - self.begun + self.last <= share * self.seconds

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens meanwhile does not count."""
        paused = time.monotonic()
        yield
        self.begun += time.monotonic() - paused


class _Labelled(Progress):
    """Says whose work it is."""

    def __init__(self, inner: Progress, label: str) -> None:
        self._inner, self._label = inner, label

    def start(self, label: str, total: int) -> None:
        self._inner.start(f"{self._label}: {label}", total)

    def advance(self, tokens: int) -> None:
        self._inner.advance(tokens)


def _count_windows(tokenizer: PreTrainedTokenizerBase, text: str, to: int, wanted: int | None) -> int:
    encoder = Encoder(tokenizer)
    found = cut_windows(encoder, text, to - len(encoder.prefix), wanted, least=2)
    return len(found) if wanted is not None else min(_MOST_WINDOWS, len(found))
