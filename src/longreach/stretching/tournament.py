"""Measures the model as it is and under each candidate, under equal conditions: all on one text, the best of them on more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.core.progress import Progress
from longreach.core.spec import parse
from longreach.engine import window
from longreach.engine.apply import apply
from longreach.evaluation.asking.space import DEPTHS
from longreach.evaluation.cells import Stopping
from longreach.evaluation.measure import measure, octaves, parse_tasks
from longreach.evaluation.readings import can_share
from longreach.evaluation.rows import Row
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.retrieval._retrieval import PROMPTS, QUESTIONS
from longreach.evaluation.usable import INSIDE, RECALLS, Measured, short_scores
from longreach.stretching.candidates import Candidate, applicable, improved
from longreach.stretching.choice import Purpose, Standing, choose, facts, label, screening_order, standing
from longreach.stretching.clock import Clock, Labelled, OutOfTime, Pace

_SHARED = ":shared=true"
TASKS: dict[Purpose, str] = {"recall": f"loss+needle{_SHARED}", "streaming": "loss"}  # what a method is judged by
FINALISTS = 3
_DECIDE = 2  # texts, at least
_SHARES = (0.5, 0.65)  # of the time that is left, spent at most when the first screening ends, and that of stacks
NOT_NEEDED = "it takes a prompt for every question, and others are good enough; name it to try it all the same"
NO_TIME = "the time budget was spent before it was measured"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured. Args: windows: texts, at most. samples: questions of each depth, length and text; None: until it is decided."""

    windows: int
    samples: int | None = None
    depths: tuple[float, ...] = DEPTHS


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


class Tournament:
    """Measures candidates, and remembers the rows of each. `short`: share of needles that the model itself finds inside its window."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        common: dict[str, Any],
        purpose: Purpose,
        budget: Budget,
        seed: int,
        clock: Clock,
    ) -> None:
        self.model, self.tokenizer, self.name, self.common = model, tokenizer, name, common
        self.purpose, self.budget, self.seed, self.clock = purpose, budget, seed, clock
        self.window, self.to = common["trained_window"], common["to"]
        self.trained: Trained | None = None
        self.short: float | None = None
        self.found: dict[str, list[Row]] = {}
        self.standard: list[Row] = []
        self._inside: list[Row] = []
        self._sharing: dict[str, bool] = {}
        self._cut: set[str] = set()  # labels of those whose time was spent before as many texts were read as decide

    def estimate(self, fitting: Sequence[Candidate], finalists: int) -> tuple[float, float]:
        """Seconds that it may take at least and at most: one text for every candidate, and more for the stock model and the finalists.

        Least where two texts decide, most where all are read. Stacks are not counted, nor what is tried only where nothing else will do.
        """
        pace = Pace(self.model, self.to, self.common["chunk_size"], Labelled(self.clock, "stock"))
        inside = 2 * (self.to / self.window - 1) * pace.reading(self.window)  # in pieces that overlap by half
        texts = sorted(self._text_seconds(one, pace) for one in self._quick(fitting))
        stock, dearest = self._text_seconds(Candidate(), pace), sum(texts[-finalists:])
        most = self.budget.windows
        least = most if self.common["windows"] else min(_DECIDE, most)
        first, last = (sum(texts) + count * (stock + inside) + (count - 1) * dearest for count in (least, most))
        return first, last

    def stock(self, refused: dict[str, str]) -> list[Standing]:
        """The model as it is. One that cannot read to the target goes to `refused`, and is measured as far as it reads."""
        limit = window.position_limit(self.model)
        if limit is None or self.to <= limit:
            return [self.stand(Candidate(), self.budget.windows)]
        refused[""] = f"it {window.cannot_read(limit)}"
        try:
            self._inside = self._rows(Candidate(), self.budget.windows)
            self._judge_recall(self._inside)
        except NoRoom:  # for a question inside the window: nothing is known of it, and everything is to be found beyond
            self.short = 1.0
        return []

    def tournament(self, fitting: Sequence[Candidate], refused: dict[str, str], finalists: int, *, widen: bool) -> list[Standing]:
        """Standings, the finalists' first. `refused` gets those that fail only when they run, and those for which there was no time.

        Where there are more than finalists, all are screened on one text first. Those that need a prompt for every question are tried only
        where no other is good enough, unless they were named. `widen`: also try stacks on the best.
        """
        fitting = [one for one in fitting if self._may_win(one, refused)]
        quick = self._quick(fitting)
        slow = [one for one in fitting if one not in quick]
        found = self._tournament(quick, refused, finalists, widen) if quick else []
        if slow and not choose(found, self.purpose, self.to).good_enough:
            found = [*found, *self._tournament(slow, refused, finalists, widen)]
            return [*screening_order(one for one in found if not one.screened), *(one for one in found if one.screened)]
        refused |= {one.label: NOT_NEEDED for one in slow}
        return found

    def _tournament(self, fitting: Sequence[Candidate], refused: dict[str, str], finalists: int, widen: bool) -> list[Standing]:
        if len(fitting) <= finalists:
            return screening_order(self._stand_all(fitting, self.budget.windows, refused, 1))
        by_spec = {candidate.spec: candidate for candidate in fitting}
        self.clock.mark()
        ranked = screening_order(self._stand_all(fitting, 1, refused, _SHARES[0]))
        if widen:
            stacks = self._stacks([by_spec[one.method] for one in ranked[:finalists]], refused)
            by_spec |= {candidate.spec: candidate for candidate in stacks}
            ranked = screening_order([*ranked, *self._stand_all(stacks, 1, refused, _SHARES[1])])
        missing: dict[str, str] = {}
        chosen = [one for one in ranked if self.purpose != "recall" or not one.forgets] or ranked  # what may win
        full = self._stand_all([by_spec[one.method] for one in chosen[:finalists]], self.budget.windows, missing, 1)
        failed = {spec: why for spec, why in missing.items() if why != NO_TIME}  # the others stand as they were screened
        refused |= failed
        done = {one.method for one in full} | failed.keys()
        return [*screening_order(full), *(one for one in ranked if one.method not in done)]

    def tuned(self, tuner: Tuner, standings: Sequence[Standing], refused: dict[str, str]) -> list[Standing]:
        """Train the model under one of the positions methods that stand, and measure it alone and with what improves it on top."""
        first = [parse(one.method)[0] for one in standings if one.method]
        positions = [method.spec for method in first if method.kind == "positions"]
        self._measure_standard(self.budget.windows)  # of the model as it was
        with self.clock.stopped():
            self.trained = tuner(list(dict.fromkeys(positions)), self.clock.progress)
        self.model = self.trained.model
        alone = Candidate(stack=parse(self.trained.method), tuned=self.trained.steps)
        return self._stand_all([alone, *self._stacks([alone], refused)], self.budget.windows, refused, 1)

    def stand(self, candidate: Candidate, texts: int) -> Standing:
        """Measure one candidate on so many texts at most."""
        rows = self._rows(candidate, texts)
        if not candidate.label:
            self._judge_recall(rows)
        self.found[candidate.label] = rows
        found = standing(
            rows,
            self.standard,
            method=candidate.spec,
            tuned=candidate.tuned,
            lost=self.trained.lost if candidate.tuned and self.trained is not None else "",
            trained_window=self.window,
            forgets=candidate.forgets,
            bounded_memory=candidate.bounded_memory,
            screened=texts < self.budget.windows or candidate.label in self._cut,
            short=self.short if self._asks else None,
            complexity=candidate.complexity,
        )
        self.clock.say(f"{found.label}: {facts(found)}.")
        return found

    def rows_of(self, standings: Sequence[Standing]) -> list[Row]:
        """Every row that the standings are drawn from."""
        return [*self.standard, *self._inside, *(row for one in standings for row in self.found[label(one.method, one.tuned)])]

    @property
    def _asks(self) -> bool:
        """Whether needles are asked for: not where the model finds few inside its window, for then they say nothing."""
        return self.purpose == "recall" and (self.short is None or self.short >= RECALLS)

    def _judge_recall(self, rows: Sequence[Row]) -> None:
        if self.purpose == "recall":
            self.short = min(short_scores(rows, self.window).values(), default=None)

    def _quick(self, fitting: Sequence[Candidate]) -> list[Candidate]:
        """Those that are tried whatever the others do."""
        return [one for one in fitting if not self._barred(one) and (one.named or self._shares(one))]

    def _shares(self, candidate: Candidate) -> bool:
        """Whether one reading of a text serves all that is asked of it."""
        if not self._asks:
            return True
        if candidate.label not in self._sharing:
            try:
                with apply(self.model, candidate.spec, warn=False):
                    self._sharing[candidate.label] = can_share(self.model)
            except LongreachError:
                return True  # what is wrong is told when it is measured
        return self._sharing[candidate.label]

    def _text_seconds(self, candidate: Candidate, pace: Pace) -> float:
        """About how long one text takes with all that is asked of it."""
        lengths = [edge for edge in octaves(self.window, self.to) if not candidate.label or edge > self.window]
        asked, depths = self.budget.samples, len(self.budget.depths)
        if not self._asks:
            return pace.reading(self.to)
        if not self._shares(candidate):
            prompts = (PROMPTS if asked is None else asked) * depths / self.budget.windows
            return pace.reading(self.to) + prompts * sum(map(pace.reading, lengths))
        questions = (QUESTIONS if asked is None else asked) * depths * len(lengths)
        return pace.reading(self.to) + 2 * questions * pace.asking  # the fact, and the question

    def _barred(self, candidate: Candidate) -> bool:
        return self.purpose == "recall" and candidate.forgets and not candidate.named

    def _may_win(self, candidate: Candidate, refused: dict[str, str]) -> bool:
        if self._barred(candidate):
            refused[candidate.label] = "it forgets the middle of the text; try it --for streaming"
        return not self._barred(candidate)

    def _rows(self, candidate: Candidate, texts: int) -> list[Row]:
        """Text by text, until nothing more is of interest, or the time is spent."""
        found: list[Row] = []
        for number in range(1, texts + 1):
            try:
                if not candidate.tuned:
                    self._measure_standard(number)
                rows = self._measure(candidate, number, texts == self.budget.windows)
            except OutOfTime:
                if not candidate.label or number == 1:
                    raise
                self._cut |= {candidate.label} if number <= _DECIDE else set()
                return found
            found = rows
            if not rows.open:
                break
        return found

    def _measure(self, candidate: Candidate, texts: int, full: bool) -> Measured:
        told = f"{candidate.label or 'stock'}" + (f", text {texts}" if texts > 1 else "")
        stopping = Stopping(standard=self.standard, short=self.short, texts=texts, give_up=True)
        asked: dict[str, Any] = {"samples": self.budget.samples, "depths": self.budget.depths, "seed": self.seed} if self._asks else {}
        lengths = None
        if candidate.label:  # inside the window only of those that are measured in full
            lengths = tuple(edge for edge in octaves(self.window, self.to) if edge > self.window or (full and edge == self.window))
        tasks = TASKS["recall" if self._asks else "streaming"]
        if self._asks and not self._shares(candidate):
            tasks = tasks.replace(_SHARED, "")
        return measure(
            self.model, self.tokenizer, tasks=tasks, method=candidate.spec, lengths=lengths,
            name=label(self.name, candidate.tuned), within_reach=not candidate.label, stopping=stopping,
            progress=Labelled(self.clock, told), **asked, **self.common,
        )  # fmt: skip

    def _measure_standard(self, texts: int) -> None:
        tasks = parse_tasks(f"{INSIDE}:window_size={self.window}")
        told = Labelled(self.clock, "stock")
        stopping = Stopping(texts=texts, early=False)
        self.standard = measure(self.model, self.tokenizer, tasks=tasks, name=self.name, stopping=stopping, progress=told, **self.common)

    def _stacks(self, candidates: Sequence[Candidate], refused: dict[str, str]) -> list[Candidate]:
        """The candidates with what improves them on top."""
        found = {stack.spec: stack for candidate in candidates for stack in improved(candidate)}
        stacks, refusals = applicable(self.model, list(found.values()))
        refused |= refusals
        return [one for one in stacks if self._may_win(one, refused)]

    def _stand_all(self, candidates: Sequence[Candidate], texts: int, refused: dict[str, str], share: float) -> list[Standing]:
        """Those that there is time for in that share of it."""
        standings: list[Standing] = []
        for candidate in candidates:
            try:
                self.clock.check(share)
                with self.clock.timed():
                    standings.append(self.stand(candidate, texts))
            except OutOfTime:
                refused[candidate.label] = NO_TIME
            except LongreachError as error:
                if isinstance(error, InputError) or (isinstance(error, UnsupportedError) and candidate.named):
                    raise
                refused[candidate.label] = str(error)  # as logits that are not finite
        return standings
