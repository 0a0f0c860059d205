"""Needles found beyond the window."""

from longreach.evaluation.claims.base import Bench, Metric
from longreach.evaluation.evidence import Finding, counted, found_share


def take(name: str, bench: Bench) -> Finding:
    """Of the method's best setting."""
    bench.check_recall()
    spec = bench.best(name)
    answers = bench.answers(spec)
    return Finding(spec=spec, interval=found_share(answers), of=counted(answers, "prompt"))


METRIC = Metric(meaning="share of needles found at the target length", take=take)
