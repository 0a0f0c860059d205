"""What was measured of each method beside the bar, and the rule that chooses one. Works on rows alone."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, harmonic_mean
from typing import Literal

from longreach.evaluation.intervals import Interval, anytime_interval, block_interval, prompts_to_decide, reaches, texts_to_decide
from longreach.evaluation.rows import Row, by_block
from longreach.evaluation.usable import KEEPS, METRIC, RECALLS, RISE

Purpose = Literal["recall", "streaming"]

RISE_BAR = RISE
_SAME_RETRIEVAL = 0.05
_SAME_LOSS = 0.02  # nats a token
_ROUNDING = 1e-9  # what equals a limit counts as within it

_MEANING = "Loss beyond the window is compared with that of the unchanged model on the same tokens, read inside its window."
_SIMPLEST = "Of equals the simplest is chosen: the model as it is, then a method that a plain checkpoint can hold, then fewer methods."
RULES: dict[Purpose, str] = {
    "recall": f"Good enough is a method that at the target finds at least {KEEPS:.0%} of what the model itself finds inside its window, "
    f"with a loss beyond the window at most {RISE_BAR} nats a token above that inside, by the whole of both intervals. {_MEANING} Of the "
    "methods that are good enough (else of those that may be, else of all), those within "
    f"{_SAME_RETRIEVAL} of the best retrieval stay, and of these those within {_SAME_LOSS} nats of the lowest loss. {_SIMPLEST} A method "
    f"that forgets the middle of the text is never chosen. Where the model itself finds less than {RECALLS:.0%} inside its window, "
    "retrieval says nothing, and the loss alone decides.",
    "streaming": f"Good enough is a method with a loss beyond the window at most {RISE_BAR} nats a token above that inside. {_MEANING} Of "
    "the methods that are good enough, those with bounded memory come first; where none is good enough, those within "
    f"{_SAME_LOSS} nats of the lowest loss come before that. {_SIMPLEST}",
}
TUNED_RULE = "A model that was tuned must also have kept its loss inside the window, within the bar that tuning has."


def label(method: str, tuned: int = 0) -> str:
    """How people call a method, and a model that was tuned under it for some steps."""
    return f"{method}, tuned {tuned} {'step' if tuned == 1 else 'steps'}" if tuned else method


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What was measured of one method. Losses are nats a token.

    Args: method: spec, "" for the model as it is. tuned: steps that the model was trained before; 0: it is the unchanged one. lost: in
    words, why the tuned model may not be called extended; empty where nothing says so. screened: measured on a small budget only. inside:
    its own loss up to the trained window. beyond: from there to the target. rise: the latter less the unchanged model's loss on the same
    tokens inside its window. retrieval: share of right answers at the target, None where it was not measured. prompts, texts: how many.
    retrieval_inside: at the trained window. reach: mean share at all lengths beyond the window. tokens_per_s, peak_bytes: at the target.
    """

    method: str
    tuned: int = 0
    lost: str = ""
    forgets: bool
    bounded_memory: bool
    screened: bool = False
    inside: Interval
    beyond: Interval
    rise: Interval
    retrieval: Interval | None = None
    bar: float = KEEPS
    length: int
    right: float = 0.0
    prompts: int = 0
    texts: int = 1
    complexity: tuple[int, ...] = ()
    retrieval_inside: Interval | None = None
    reach: float = 0.0
    tokens_per_s: float
    peak_bytes: int

    @property
    def label(self) -> str:
        """How people call it."""
        return label(self.method, self.tuned) or "stock"

    @property
    def retrieves(self) -> bool | None:
        """Whether its retrieval keeps to the bar; None where that cannot be told, or was not measured."""
        return reaches(self.right, self.prompts, self.bar) if self.prompts else None

    @property
    def shortfalls(self) -> list[str]:
        """Where it misses the bar: by the whole of the interval."""
        misses = []
        if self.retrieval is not None and self.retrieves is False:
            misses.append(f"retrieval {self.retrieval.mean:.2f} < {self.bar:.2f}")
        if self.rise.low > RISE_BAR + _ROUNDING:
            misses.append(f"loss {self.rise.mean:+.2f} > +{RISE_BAR}")
        return [*misses, *([self.lost] if self.lost else [])]

    @property
    def undecided(self) -> list[str]:
        """Where what was measured cannot tell on which side of the bar it is, and what could."""
        found, retrieval, rise = [], self.retrieval, self.rise
        if retrieval is not None and self.retrieves is None:
            needed = prompts_to_decide(retrieval.mean, self.bar)
            of = _counted(self.prompts, "question")
            what = f"retrieval {retrieval.low:.2f} to {retrieval.high:.2f} of {of}, bar {self.bar:.2f}"
            found.append(what + (f": {needed} would tell" if needed else ""))
        if rise.low <= RISE_BAR + _ROUNDING < rise.high:
            needed = texts_to_decide(rise, self.texts, RISE_BAR)
            what = f"loss {rise.mean:+.2f} ± {rise.high - rise.mean:.2f} of {_counted(self.texts, 'text')}, bar +{RISE_BAR}"
            found.append(what + (f": {needed} would tell" if needed else ""))
        return found


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The outcome of the rule.

    Args: best: None where no method could win. good_enough: it is, by the whole of all intervals. undecided: it may be. reason: in words.
    """

    best: Standing | None
    good_enough: bool
    undecided: bool = False
    reason: str


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def standing(
    rows: Sequence[Row],
    standard: Sequence[Row],
    *,
    method: str,
    tuned: int = 0,
    lost: str = "",
    trained_window: int,
    forgets: bool,
    bounded_memory: bool,
    screened: bool,
    short: float | None = 1.0,
    complexity: tuple[int, ...] = (),
) -> Standing:
    """What the rows of one method say.

    Args: standard: rows of `loss_inside` on at least the same texts. short: share of right answers of the model itself inside its window;
    None where that is so low that retrieval says nothing.
    """
    length = max(row.length for row in rows)
    losses = [row for row in rows if row.settings["metric"] == "loss"]
    answers = [row for row in rows if row.settings["metric"] == METRIC] if short is not None else []
    beyond, same_tokens = by_block(row for row in losses if row.length > trained_window), by_block(standard)
    at_length = [row for row in answers or losses if row.length == length] or [row for row in losses if row.length == length]
    asked = [row.score or 0.0 for row in answers if row.length == length]
    far = [row.score or 0.0 for row in answers if row.length > trained_window]
    return Standing(
        method=method,
        tuned=tuned,
        lost=lost,
        forgets=forgets,
        bounded_memory=bounded_memory,
        screened=screened,
        inside=block_interval(list(by_block(row for row in losses if row.length <= trained_window).values())),
        beyond=block_interval(list(beyond.values())),
        rise=block_interval([loss - same_tokens[block] for block, loss in beyond.items() if block in same_tokens]),
        retrieval=_share(answers, length),
        bar=KEEPS * (1.0 if short is None else short),
        length=length,
        right=sum(asked),
        prompts=len(asked),
        texts=len({row.settings["text"] for row in losses if row.length > trained_window}),
        retrieval_inside=_share(answers, trained_window),
        reach=fmean(far) if far else 0.0,
        tokens_per_s=harmonic_mean([row.tokens_per_s or 0.0 for row in at_length]),
        peak_bytes=max(row.peak_bytes or 0 for row in at_length),
        complexity=complexity,
    )


def screening_order(standings: Iterable[Standing]) -> list[Standing]:
    """The most promising first: who reached farther, then a nat of loss weighs as much as all of retrieval."""
    return sorted(standings, key=lambda one: (-one.length, one.rise.mean - one.reach, one.complexity, one.method))


def choose(standings: Sequence[Standing], purpose: Purpose, target: int, short: float | None = None) -> Choice:
    """Apply the purpose's rule (RULES) to what was measured in full. Args: short: what the model itself finds inside its window."""
    choice = _chosen(standings, purpose, target)
    if purpose == "recall" and short is not None and short < RECALLS:
        why = f"Inside its own window the model finds {short:.0%} of the needles, so that retrieval says nothing about it"
        return replace(
            choice, reason=f"{choice.reason} {why}: the loss alone decided. For a model that reads on and on, use --for streaming."
        )
    return choice


def _chosen(standings: Sequence[Standing], purpose: Purpose, target: int) -> Choice:
    able = [one for one in standings if not one.screened and not (purpose == "recall" and one.forgets)]
    if not able:
        return Choice(best=None, good_enough=False, reason="No method could win: none was measured that keeps the whole text.")
    possible = [one for one in able if not one.shortfalls]
    good = [one for one in possible if not one.undecided]
    best, decided = _narrow(good or possible or able, purpose, bool(good))
    if good:
        return Choice(best=best, good_enough=True, reason=f"{_name(best)} {_facts(best, target)}; {decided}.")
    if possible:
        reason = f"Undecided: {_name(best)} {_facts(best, target)}. Too little was measured to tell ({'; '.join(best.undecided)})."
        return Choice(best=best, good_enough=False, undecided=True, reason=reason)
    where = "" if best.length == target else f" at {best.length} tokens already"
    reason = f"No method is good enough for {target} tokens: the best, {best.label}, falls short{where} ({'; '.join(best.shortfalls)})."
    return Choice(best=best, good_enough=False, reason=reason)


def verdict(one: Standing, choice: Choice, purpose: Purpose) -> str:
    """What became of one method, in a few words."""
    if one == choice.best and choice.good_enough:
        return "chosen"
    if purpose == "recall" and one.forgets:
        return "forgets the middle of the text"
    if one.screened:
        return "screened out"
    if one.shortfalls:
        best = one == choice.best
        return f"{'best, but ' if best else ''}{'; '.join(one.shortfalls)} at {one.length} tokens"
    if one.undecided:
        return f"{'best so far, ' if one == choice.best else ''}undecided: {'; '.join(one.undecided)}"
    return "good enough"


def _narrow(pool: list[Standing], purpose: Purpose, good: bool) -> tuple[Standing, str]:
    """The one that the rule leaves, and what decided."""
    farthest = max(one.length for one in pool)
    pool, decided = [one for one in pool if one.length == farthest], "it is the only one that is good enough"
    for keep, words in _steps(purpose, good):
        if len(pool) > 1:
            pool, decided = keep(pool), words
    if len(pool) > 1:
        decided = "it is the simplest of those that are as good"
    return min(pool, key=lambda one: (one.complexity, one.rise.mean, one.method)), decided


def _steps(purpose: Purpose, good: bool) -> list[tuple[Callable[[list[Standing]], list[Standing]], str]]:
    """What narrows the choice before simplicity does, and the words for having decided it."""
    if purpose == "recall":
        return [(_best_retrieval, "it has the best retrieval"), (_lowest_loss, "it has the lowest loss of those that retrieve as well")]
    bounded = (_bounded, "it is the only one of bounded memory")
    return [bounded] if good else [(_lowest_loss, "it has the lowest loss"), bounded]


def _best_retrieval(pool: list[Standing]) -> list[Standing]:
    best = max((one.retrieval.mean for one in pool if one.retrieval is not None), default=None)
    if best is None:
        return pool
    return [one for one in pool if one.retrieval is not None and one.retrieval.mean >= best - _SAME_RETRIEVAL - _ROUNDING]


def _lowest_loss(pool: list[Standing]) -> list[Standing]:
    lowest = min(one.rise.mean for one in pool)
    return [one for one in pool if one.rise.mean <= lowest + _SAME_LOSS + _ROUNDING]


def _bounded(pool: list[Standing]) -> list[Standing]:
    return [one for one in pool if one.bounded_memory] or pool


def _name(one: Standing) -> str:
    return f"{one.label}," if one.tuned else one.method or "The model as it is"


def _facts(one: Standing, target: int) -> str:
    loss = f"{one.rise.mean:+.3f} nats from that inside (bar +{RISE_BAR})"
    if one.retrieval is None:
        return f"has a loss beyond the window of {loss}"
    found = f"{one.right:.0f} of {one.prompts} needles"
    return f"finds {found} at {target} tokens (bar {one.bar:.2f}), and its loss beyond the window is {loss}"


def facts(one: Standing) -> str:
    """What was found of one method, in a few words."""
    loss = f"loss increase past the window {one.rise.mean:+.3f} nats a token"
    return loss if one.retrieval is None else f"{one.right:.0f} of {one.prompts} needles found at {one.length} tokens, {loss}"


def _share(answers: Iterable[Row], length: int) -> Interval | None:
    scores = [row.score or 0.0 for row in answers if row.length == length]
    return anytime_interval(sum(scores), len(scores)) if scores else None
