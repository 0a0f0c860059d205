"""The rise of the loss beyond the window, measured by the plain model's."""

from longreach.evaluation.claims.base import ClaimBench, LeftOut, Metric
from longreach.evaluation.evidence import Number, counted
from longreach.evaluation.intervals import ratio_interval


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method's flattest setting."""
    spec, plain = bench.flattest(name), bench.subject.rises("")
    if not plain:
        raise LeftOut("the plain model cannot read beyond its window")
    rises = bench.subject.rises(spec)
    return Number(spec=spec, interval=ratio_interval([rises[text] for text in plain], list(plain.values())), of=counted(plain, "text"))


METRIC = Metric(meaning="the rise of the loss beyond the window, as a share of the plain model's", take=take)
