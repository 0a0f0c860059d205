"""The loss under a method, beside position interpolation's and YaRN's."""

from longreach.evaluation.claims.base import ClaimBench, Metric, over
from longreach.evaluation.evidence import Number


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method's flattest setting."""
    return over(name, ("linear", "yarn"), bench)


METRIC = Metric(meaning="loss beyond the window above the lower one of position interpolation's and YaRN's, nats a token", take=take)
