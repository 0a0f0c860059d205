"""What a method takes off the rise of the loss under the best one that it improves."""

from longreach.evaluation.claims.base import ClaimBench, Metric, difference
from longreach.evaluation.evidence import Number


def take(name: str, bench: ClaimBench) -> Number:
    """Of both stacked, paired by text with the other alone."""
    spec, alone = bench.stacked(name)
    return difference(spec, bench.rises(alone), bench.rises(spec))


METRIC = Metric(meaning="rise of the loss beyond the window, below that of the method it is stacked on, nats a token", take=take)
