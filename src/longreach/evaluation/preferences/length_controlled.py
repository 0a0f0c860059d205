"""Length-controlled win rates: what a system would win against the baseline if its outputs were as long.

The generalised linear model of Length-Controlled AlpacaEval (arXiv:2404.04475): the logit of a win is a constant, an effect of the
difference of lengths (tanh of it in standard deviations), and, where it is known, an effect of the instruction's difficulty. It is fitted
with an L1 penalty, whose strength cross-validation chooses. The win rate is the mean of what the model predicts at equal lengths.
Differs from the paper's code: the optimum is exact, where liblinear's is near; difficulty is estimated from the other files where several
are given, or the model does without; intervals are by resampling instructions beside the standard error of what was predicted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longreach.core.errors import InputError
from longreach.evaluation.intervals import Interval, mean_interval
from longreach.evaluation.preferences.annotations import Annotations, Floats
from longreach.evaluation.preferences.difficulty import Gamed, joint_difficulty, length_feature
from longreach.evaluation.preferences.effect import LengthEffect, length_effect
from longreach.evaluation.preferences.logistic import STRENGTHS, Problem, cross_validated, sigmoid, solve

FEWEST = 20  # comparisons
RESAMPLES = 1000
_GAMED_WEIGHT = 0.2 / 2  # for each row of the two gamed baselines
_AT_ONCE = 100
_ONE_SIDED = 0.02  # share of outputs that are shorter (or longer) below which equal lengths were hardly seen


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """The length-controlled win rate of a system, in percent.

    Args: rate: with its 95 % interval by resampling instructions. standard_error: of the resampled rates. sem: standard error of the mean
    of the predictions at equal lengths, the one that AlpacaEval publishes; it leaves out how well the coefficients are known. None where
    the model has no difficulty, for then all predictions are the same.
    shorter, longer: the win rate predicted where outputs are a standard deviation shorter, or longer. length, difficulty, constant: the
    coefficients; difficulty is None where the model has none. strength: C of the penalty.
    """

    rate: Interval
    standard_error: float
    sem: float | None
    shorter: float
    longer: float
    length: float
    difficulty: float | None
    constant: float
    strength: float


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A system beside the baseline; rates in percent.

    Args: judged: comparisons with a preference. failed: without. win_rate: as annotated, with Student's t interval. win_rate_error: its
    standard error. controlled: None where length cannot be told from quality; `note` says why. model: what the fit knows. mean_length,
    baseline_mean_length: characters. effect: how much length explains; None where lengths do not differ.
    """

    system: str
    baseline: str
    place: str
    judged: int
    failed: int
    win_rate: Interval
    win_rate_error: float
    controlled: Controlled | None
    model: str
    mean_length: float
    baseline_mean_length: float
    effect: LengthEffect | None
    note: str | None = None


def compare(
    files: Sequence[Annotations],
    difficulty: dict[int, float] | None = None,
    gamed: Gamed | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Compared]:
    """Compare the system of each file with their common baseline; the highest length-controlled win rate comes first.

    Args: difficulty: index of an instruction -> difficulty. None: that of `gamed`, or estimated for each file from the others, or, for one
    file, none. gamed: comparisons that hold the effect of length. seed: of resampling.
    Raises: InputError for few comparisons, different baselines or annotators, or an instruction without difficulty.
    """
    check_together(files)
    known = difficulty if difficulty is not None else gamed.by_index if gamed else None
    found = []
    for number, file in enumerate(files):
        others = [*files[:number], *files[number + 1 :]] if known is None else []
        hardness, model = _hardness(file, known, others)
        if gamed is not None:
            model += ", effect of length held by gamed baselines"
        found.append(_compared(file, hardness, gamed, model, np.random.default_rng(seed), resamples))
    return sorted(found, key=lambda one: -(one.controlled.rate if one.controlled else one.win_rate).mean)


def check_together(files: Sequence[Annotations]) -> None:
    """Raises: InputError where files are too short, or cannot be ranked together."""
    for file in files:
        if (count := int(file.judged.sum())) < FEWEST:
            raise InputError(f"{file.place}: {count} comparisons have a preference; at least {FEWEST} are needed")
    for what in ("baseline", "annotator"):
        names = sorted({str(getattr(file, what)) for file in files})
        if len(names) > 1:
            remedy = "name the common one with --baseline" if what == "baseline" else "compare them one by one"
            raise InputError(f"the files have different {what}s, {', '.join(names)}; {remedy}")


def _hardness(file: Annotations, known: dict[int, float] | None, others: Sequence[Annotations]) -> tuple[Floats | None, str]:
    """The difficulty of each comparison [N], and what the model is called."""
    if known is not None:
        missing = next((index for index in file.index if index not in known), None)
        if missing is not None:
            raise InputError(f"{file.place}: instruction {missing} has no difficulty in the file of difficulties")
        return np.array([known[index] for index in file.index]), "length and given difficulty"
    asked = set(file.instructions)
    sharing = [other for other in others if not asked.isdisjoint(other.instructions)]
    if not sharing:
        return None, "length"
    joint = joint_difficulty(sharing)
    plural = "another file" if len(sharing) == 1 else f"{len(sharing)} other files"
    return np.array([joint.get(text, 0.0) for text in file.instructions]), f"length and difficulty estimated from {plural}"


def _compared(
    file: Annotations, hardness: Floats | None, gamed: Gamed | None, model: str, rng: np.random.Generator, resamples: int
) -> Compared:
    judged = file.judged
    y = file.preference[judged]
    spread = float(file.longer.std(ddof=1))
    raw = mean_interval((100 * y).tolist())
    controlled: Controlled | None = None
    effect: LengthEffect | None = None
    note: str | None = _SAME_LENGTHS
    if spread > 0:
        feature = length_feature(file)
        effect = length_effect(feature[judged], file.longer[judged], y)
        controlled, note = _controlled(file, feature, hardness, gamed, rng, resamples)
    return Compared(
        system=file.system, baseline=file.baseline, place=file.place, judged=len(y), failed=int((~judged).sum()), win_rate=raw,
        win_rate_error=float(100 * y.std(ddof=1) / np.sqrt(len(y))), controlled=controlled, model=model,
        mean_length=float(file.lengths.mean()), baseline_mean_length=float(file.baseline_lengths.mean()), effect=effect, note=note,
    )  # fmt: skip


def _controlled(
    file: Annotations, feature: Floats, hardness: Floats | None, gamed: Gamed | None, rng: np.random.Generator, resamples: int
) -> tuple[Controlled | None, str | None]:
    """The fit, its predictions and their intervals, or why there are none."""
    ones = np.ones_like(feature)
    x = np.stack([feature, ones] if hardness is None else [feature, hardness, ones], axis=1)
    problem = _problem(x[file.judged], file.preference[file.judged], gamed)
    strength = cross_validated(problem)
    if why := _separated(problem, len(problem.y) - int(file.judged.sum()), file):
        return None, why
    (w,) = solve(problem, strength)
    predicted = _rates(w[None], x)[0]
    drawn = _resampled(problem, x, file.judged, w, rng, resamples)
    low, high = np.quantile(drawn, [0.025, 0.975])
    sem = 100 * float(predicted.std(ddof=1)) / float(np.sqrt(len(predicted)))
    shorter, longer = (100 * float(_rates(w[None], x, size)[0].mean()) for size in (-np.tanh(1), np.tanh(1)))
    found = Controlled(
        rate=Interval(100 * float(predicted.mean()), 100 * float(low), 100 * float(high)),
        standard_error=100 * float(drawn.std(ddof=1)), sem=None if hardness is None else sem,
        shorter=shorter, longer=longer, length=float(w[0]), difficulty=None if hardness is None else float(w[1]), constant=float(w[-1]),
        strength=strength,
    )  # fmt: skip
    return found, "; ".join(_doubts(file, found)) or None


def _problem(x: Floats, y: Floats, gamed: Gamed | None) -> Problem:
    """The rows to fit: the gamed ones, which the constant is no part of, before the system's own."""
    if gamed is None:
        return Problem(x=x, y=y, weight=np.ones(len(y)))
    rows = np.stack([gamed.feature, gamed.difficulty, np.zeros_like(gamed.feature)], axis=1)
    weight = np.concatenate([np.full(len(rows), _GAMED_WEIGHT), np.ones(len(y))])
    return Problem(x=np.concatenate([rows, x]), y=np.concatenate([gamed.preference, y]), weight=weight)


def _rates(w: Floats, x: Floats, length: float = 0.0) -> Floats:
    """Chances of a win [B, N] where every difference of lengths has the feature `length`."""
    at = x.copy()
    at[:, 0] = length
    return sigmoid(w @ at.T)


def _resampled(problem: Problem, x: Floats, judged: NDArray[np.bool_], start: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Length-controlled win rates (shares) of data sets drawn from the comparisons with replacement.

    Each is fitted with hardly a penalty: a strong one, which cross-validation likes where there are few comparisons, would hold the
    coefficients still and the intervals too narrow.
    """
    found, fixed = [], len(problem.y) - int(judged.sum())
    for begin in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - begin)
        counts = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=size).astype(float)
        rows = np.concatenate([np.ones((size, fixed)), counts[:, judged]], axis=1)
        found.append((_rates(solve(problem, STRENGTHS[-1], rows, start), x) * counts).sum(-1) / len(x))
    return np.concatenate(found)


def _separated(problem: Problem, gamed: int, file: Annotations) -> str | None:
    """Why no effect can be estimated, where the model tells every winner: without the penalty its coefficients would be infinite."""
    y, x = problem.y[gamed:], problem.x[gamed:]
    if (np.abs(y - 0.5) < _CLEAR).any():
        return None
    if (y > 0.5).all() or (y < 0.5).all():
        name = file.system if y[0] > 0.5 else file.baseline
        return f"{name} wins every comparison, so nothing can be said of length; the win rate is as annotated"
    (w,) = solve(problem, STRENGTHS[-1])
    if ((x @ w > 0) == (y > 0.5)).all():
        return "length tells every winner, so it cannot be told from quality; the win rate is as annotated"
    return None


def _doubts(file: Annotations, fit: Controlled) -> Iterator[str]:
    """What a reader of the rate has to know."""
    for word, share in (("longer", (file.longer > 0).mean()), ("shorter", (file.longer < 0).mean())):
        if share > 1 - _ONE_SIDED:
            yield f"{share:.0%} of its outputs are {word}: what it would win at equal lengths is extrapolated"
    if fit.length == 0 == fit.constant and not fit.difficulty:
        yield "the penalty that cross-validation chose leaves nothing of the model: the rate is 50 for want of comparisons"
    elif not fit.rate.low <= fit.rate.mean <= fit.rate.high:
        yield "the penalty that cross-validation chose holds the rate outside its interval; there are few comparisons"


_SAME_LENGTHS = "the difference of lengths is the same everywhere, so its effect cannot be told; the win rate is as annotated"
_CLEAR = 0.49  # a preference nearer to 1 or 0 than 0.01 names a winner
