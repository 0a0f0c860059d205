"""How far the logits are from those of the model as it is, inside the window."""

import torch

import longreach
from longreach.evaluation.claims._token_by_token import ids_inside, largest, token_by_token
from longreach.evaluation.claims.base import ClaimBench, Metric
from longreach.evaluation.evidence import Number


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method token by token, beside the model's one pass over all of the window."""
    ids = ids_inside(bench)
    with torch.no_grad():
        stock = bench.model(ids, use_cache=False).logits
    with longreach.apply(bench.model, name):
        return largest(name, token_by_token(bench, ids) - stock)


METRIC = Metric(meaning="largest difference of a logit from the model as it is, token by token over its window", take=take)
