"""The rise of the loss beyond the window."""

from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number, counted


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method's flattest setting."""
    spec = bench.flattest(name)
    return Number(spec=spec, interval=bench.rise(spec), of=counted(bench.rises(spec), "text"))


METRIC = Metric(meaning="loss beyond the window above that inside, nats a token", take=take)
