"""Needles found beyond the window."""

from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number, counted, found_share


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method's best setting."""
    bench.check_recall()
    spec = bench.best(name)
    answers = bench.answers(spec)
    return Number(spec=spec, interval=found_share(answers), of=counted(answers, "prompt"))


METRIC = Metric(meaning="share of needles found at the target length", take=take)
