"""Needles found beyond the window, beside those found inside."""

from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number, counted
from longreach.evaluation.intervals import share_ratio_interval


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method's best setting."""
    inside = bench.inside()
    spec = bench.best(name)
    answers = bench.answers(spec)
    interval = share_ratio_interval(sum(answers.values()), len(answers), sum(inside.values()), len(inside))
    return Number(spec=spec, interval=interval, of=counted(answers, "question"))


METRIC = Metric(meaning="share of needles found at the target length, divided by the plain model's inside its window", take=take)
