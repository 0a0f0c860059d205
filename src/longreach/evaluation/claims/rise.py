"""The rise of the loss beyond the window."""

from longreach.evaluation.claims.base import Bench, Metric
from longreach.evaluation.evidence import Finding, counted


def take(name: str, bench: Bench) -> Finding:
    """Of the method's flattest setting."""
    spec = bench.flattest(name)
    return Finding(spec=spec, interval=bench.rise(spec), of=counted(bench.subject.rises(spec), "text"))


METRIC = Metric(meaning="loss beyond the window above that inside, nats a token", take=take)
