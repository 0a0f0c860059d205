"""Finds the method that lets a model reach a length: candidates are screened, the best ones measured in full, and a rule chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError, UnsupportedError
from longreach.core.progress import SILENT, Progress
from longreach.evaluation import measure as measuring
from longreach.evaluation.candidates import AUTO, Candidate, applicable, collect, improved
from longreach.evaluation.choice import RULES, Choice, Purpose, Standing, choose, screening_order, standing
from longreach.evaluation.measure import DEPTHS, SAMPLES, measure, parse_tasks
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.text import Encoder, cut_windows
from longreach.models import window
from longreach.models.reading import CHUNK

TASKS: dict[Purpose, tuple[str, ...]] = {"recall": ("needle", "loss"), "streaming": ("loss",)}  # what a method is judged by
FINALISTS = 3
_MOST_WINDOWS = 8  # losses are compared token by token, which needs fewer texts than a loss by itself
_SCREENING = 2  # windows of text, and prompts of each depth and length


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is measured. Args: windows: of text, for the loss. samples: prompts of each length and depth."""

    windows: int
    samples: int = SAMPLES
    depths: tuple[float, ...] = DEPTHS

    def screening(self) -> "Budget":
        """A small part of it, so that what screening measures is not measured again: the beginning and the middle of the text."""
        depths = sorted({self.depths[0], self.depths[len(self.depths) // 2]})
        return Budget(windows=min(_SCREENING, self.windows), samples=min(_SCREENING, self.samples), depths=tuple(depths))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found.

    Args: standings: the model as it is first, then what was measured in full, then what was only screened, each from good to bad.
    refused: spec -> why it cannot be applied to this model. rows: everything measured that the standings are drawn from.
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
        return RULES[self.purpose]

    @property
    def chosen(self) -> str | None:
        """The spec of the method that is good enough ("" for the model as it is), None where none is."""
        return self.choice.best.method if self.choice.good_enough and self.choice.best is not None else None


def stretch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str,
    to: int,
    text: str,
    methods: Sequence[str] = (AUTO,),
    purpose: Purpose = "recall",
    finalists: int = FINALISTS,
    trained_window: int | None = None,
    windows: int | None = None,
    samples: int | None = None,
    depths: Sequence[float] | None = None,
    seed: int | None = None,
    chunk_size: int | None = None,
    batch_size: int | None = None,
    rows: Rows | None = None,
    progress: Progress = SILENT,
) -> Outcome:
    """Measure the model as it is and under each candidate, up to `to` tokens, and choose.

    Args: methods: what to try: `auto`, names or specs. purpose: recall (the whole text can be asked about) or streaming (it reads on and
    on). finalists: how many are measured in full where there are more. windows: texts for the loss (default: 8, or 4 or 2 where the text
    is short). The others are those of `measure`.

    Raises: InputError for what does not fit; UnsupportedError for a method in `methods` that the model does not take. What was measured
    stays in `rows`.
    """
    trained = trained_window or window.trained_window(model.config)
    if to <= trained:
        raise InputError(f"nothing to stretch: {to} tokens are within the trained window of {trained}; give a greater length")
    check(
        text=text, purpose=purpose, finalists=finalists, windows=windows, samples=samples, depths=depths, seed=seed,
        chunk_size=chunk_size, batch_size=batch_size,
    )  # fmt: skip
    fitting, refused = applicable(model, collect(methods, trained, to))
    if not fitting:
        raise InputError(f"no method can be applied to {name}: " + "; ".join(f"{spec}: {why}" for spec, why in refused.items()))
    budget = Budget(
        windows=_count_windows(tokenizer, text, to, windows),
        samples=SAMPLES if samples is None else samples,
        depths=DEPTHS if depths is None else tuple(sorted(depths)),
    )
    common = {
        "name": name, "to": to, "text": text, "trained_window": trained, "chunk_size": CHUNK if chunk_size is None else chunk_size,
        "batch_size": batch_size, "rows": Rows() if rows is None else rows,
    }  # fmt: skip
    bench = _Bench(model, tokenizer, common, purpose, budget, seed or 0, progress)
    stock = bench.stand(Candidate(), budget)
    ranked = bench.tournament(fitting, refused, finalists, widen=AUTO in methods)
    standings = (stock, *ranked)
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


def check(*, text: str, purpose: Purpose, **options: Any) -> None:
    """Refuse, before a model is loaded, what `stretch` would refuse: options that are out of range or have no effect on the purpose.

    Raises: InputError.
    """
    measuring.check(parse_tasks("+".join(TASKS[purpose])), text=text, **options)


class _Bench:
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
    ) -> None:
        self.model, self.tokenizer, self.common = model, tokenizer, common
        self.purpose, self.budget, self.seed = purpose, budget, seed
        self.progress = progress
        self.found: dict[str, list[Row]] = {}
        self.standard: list[Row] = []
        self._measured, self._expected = 0, 0

    def tournament(self, fitting: Sequence[Candidate], refused: dict[str, str], finalists: int, *, widen: bool) -> list[Standing]:
        """Standings, the finalists' first. `refused` gets those that fail only when they run. `widen`: also try stacks on the best."""
        if len(fitting) <= finalists:
            self._expected = len(fitting)
            return screening_order(self._stand_all(fitting, self.budget, refused))
        by_spec = {candidate.spec: candidate for candidate in fitting}
        self._expected = len(fitting) + finalists + widen
        screened = screening_order(self._stand_all(fitting, self.budget.screening(), refused))
        if widen and (best := next((one for one in screened if self._can_win(one)), None)) is not None:
            stacks, refusals = applicable(self.model, improved(by_spec[best.method]))
            refused |= refusals
            by_spec |= {candidate.spec: candidate for candidate in stacks}
            screened = screening_order([*screened, *self._stand_all(stacks, self.budget.screening(), refused)])
        chosen = [one for one in screened if self._can_win(one)][:finalists]
        full = self._stand_all([by_spec[one.method] for one in chosen], self.budget, refused)
        return [*screening_order(full), *(one for one in screened if one not in chosen)]

    def stand(self, candidate: Candidate, budget: Budget) -> Standing:
        """Measure one candidate."""
        stage = "" if budget == self.budget else ", screening"
        told = _Labelled(
            self.progress, f"{candidate.spec or 'stock'} ({self._measured} of {self._expected}{stage})" if self._measured else "stock"
        )
        self._measured += 1
        common = {**self.common, "progress": told}
        rows = []
        for task in TASKS[self.purpose]:
            # Prompts take their text from the same windows in screening as in full, so that none is answered twice.
            plan = (
                {"windows": budget.windows}
                if task == "loss"
                else {"windows": self.budget.windows, "samples": budget.samples, "depths": budget.depths, "seed": self.seed}
            )
            rows += measure(self.model, self.tokenizer, tasks=parse_tasks(task), method=candidate.spec, **plan, **common)
        inside = parse_tasks(f"loss_inside:window_size={common['trained_window']}")
        standard = measure(self.model, self.tokenizer, tasks=inside, windows=budget.windows, **common)
        if budget == self.budget:
            self.standard = standard
        self.found[candidate.spec] = rows
        return standing(
            rows,
            standard,
            method=candidate.spec,
            trained_window=common["trained_window"],
            forgets=candidate.forgets,
            bounded_memory=candidate.bounded_memory,
            screened=budget != self.budget,
        )

    def rows_of(self, standings: Sequence[Standing]) -> list[Row]:
        """Every row that the standings are drawn from."""
        return [*self.standard, *(row for one in standings for row in self.found[one.method])]

    def _stand_all(self, candidates: Sequence[Candidate], budget: Budget, refused: dict[str, str]) -> list[Standing]:
        standings = []
        for candidate in candidates:
            try:
                standings.append(self.stand(candidate, budget))
            except LongreachError as error:
                if isinstance(error, InputError) or (isinstance(error, UnsupportedError) and candidate.named):
                    raise
                refused[candidate.spec] = str(error)  # as logits that are not finite
        return standings

    def _can_win(self, one: Standing) -> bool:
        return self.purpose == "streaming" or not one.forgets


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
