"""How far the logits of a wrapper around yarn are from those of the model as it is, inside the window."""

import longreach
from longreach.evaluation.claims._token_by_token import ids_inside, largest, token_by_token
from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number


def take(name: str, bench: ClaimBench) -> Number:
    """Of both token by token."""
    spec, ids = f"yarn:factor=8+{name}", ids_inside(bench)
    stock = token_by_token(bench, ids)
    with longreach.apply(bench.model, spec):
        return largest(spec, token_by_token(bench, ids) - stock)


METRIC = Metric(
    meaning="stacked on yarn, largest difference of a logit from the model as it is, both token by token over its window", take=take
)
