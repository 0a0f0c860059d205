"""What a method adds to the retrieval of the best one that it improves."""

from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number, counted
from longreach.evaluation.intervals import paired_share_interval


def take(name: str, bench: ClaimBench) -> Number:
    """Of both stacked, paired by prompt with the other alone."""
    bench.inside()
    spec, alone = bench.stacked(name)
    both, before = bench.answers(spec), bench.answers(alone)
    pairs = [(found, before[prompt]) for prompt, found in both.items()]
    return Number(spec=spec, interval=paired_share_interval(pairs), of=counted(pairs, "question"))


METRIC = Metric(meaning="share of needles found at the target length, above that of the method it is stacked on", take=take)
