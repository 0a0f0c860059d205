"""Finds the method that lets a model reach a length: candidates are screened, the best ones measured in full, and a rule chooses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.core.errors import InputError, LongreachError
from longreach.core.lengths import parse_length
from longreach.core.method import Method
from longreach.core.progress import SILENT, Progress
from longreach.core.spec import split_specs
from longreach.data.stdlib import stdlib_text
from longreach.decoding.encoder import Encoder
from longreach.decoding.reading import CHUNK, check_eval
from longreach.engine import window
from longreach.engine.apply import given_model
from longreach.evaluation import measure as measuring
from longreach.evaluation.asking.space import DEPTHS
from longreach.evaluation.measure import name_of, parse_tasks
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.text import cut_windows
from longreach.stretching.candidates import AUTO, applicable, collect
from longreach.stretching.choice import RULES, TUNED_RULE, Choice, Purpose, Standing, choose, screening_order
from longreach.stretching.clock import Clock, OutOfTime
from longreach.stretching.tournament import FINALISTS, NO_TIME, TASKS, Budget, Tournament, Tuner


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found.

    Args: standings: the model as it is first, unless it cannot read so far, then what was measured in full, then what was only screened
    (on one text), each from good to bad. short: share of needles that the model itself finds inside its window; None: not asked.
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
    short: float | None = None

    @property
    def rule(self) -> str:
        """How the choice was made."""
        tuned = any(one.tuned for one in self.standings)
        return f"{RULES[self.purpose]} {TUNED_RULE}" if tuned else RULES[self.purpose]

    @property
    def chosen(self) -> str | None:
        """The spec of the method that is good enough ("" for the model as it is), None where none is."""
        return self.choice.best.method if self.choice.good_enough and self.choice.best is not None else None


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
    streaming (it reads on and on). finalists: how many are measured in full where there are more; the others are screened on one text.
    seconds: time to spend, the model as it is included: what there is no time for is not tried. tuner: trains the model, in place, once all
    else is measured; what it makes is measured, too, alone and with what improves it, and its time does not count. windows, samples: of
    texts, and of questions to each at every depth and length (default: until it is decided, on four texts at most). The others are those of
    `measure`.

    Raises: InputError for what does not fit; UnsupportedError for a method in `methods` that the model does not take; LongreachError where
    the time is spent before the model as it is was measured. What was measured stays in `rows`.
    """
    model, to = given_model(model), parse_length(to)
    check_eval(model)
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
        windows=_count_windows(tokenizer, text, to, windows), samples=samples, depths=DEPTHS if depths is None else tuple(sorted(depths))
    )
    store = Rows.of(rows)
    common = {
        "to": to, "text": text, "trained_window": trained, "chunk_size": CHUNK if chunk_size is None else chunk_size,
        "batch_size": batch_size, "rows": store, "windows": windows,
    }  # fmt: skip
    clock = Clock(seconds, progress)
    bench = Tournament(model, tokenizer, name, common, purpose, budget, seed or 0, clock)
    try:
        clock.expect(*bench.estimate(fitting, finalists), known=any(row.model == name for row in store), trains=tuner is not None)
        stock = bench.stock(refused)
    except OutOfTime as error:
        raise LongreachError(f"{error} before the model as it is was measured; give more, or a shorter length") from None
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
        choice=_told(choose(standings, purpose, to, bench.short), refused),
        standings=standings,
        refused=refused,
        rows=tuple(bench.rows_of(standings)),
        budget=budget,
        seed=seed or 0,
        text_sha256=sha256(text.encode()).hexdigest(),
        short=bench.short,
    )


def check(*, text: str | None, purpose: Purpose, **options: Any) -> None:
    """Refuse, before a model is loaded, what `stretch` would refuse: options that are out of range or have no effect on the purpose.

    Raises: InputError.
    """
    measuring.check(parse_tasks(TASKS[purpose]), text=text, **options)


def _told(choice: Choice, refused: dict[str, str]) -> Choice:
    """With what was not tried, where that might have been good enough."""
    untried = sum(why == NO_TIME for why in refused.values())
    if choice.good_enough or not untried:
        return choice
    more = f"There was no time for {untried} {'method' if untried == 1 else 'methods'} more; the same command goes on with what is left."
    return replace(choice, reason=f"{choice.reason} {more}")


def _count_windows(tokenizer: PreTrainedTokenizerBase, text: str, to: int, wanted: int | None) -> int:
    encoder = Encoder(tokenizer)
    return len(cut_windows(encoder, text, to - len(encoder.prefix), wanted, least=2))
