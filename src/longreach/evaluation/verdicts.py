"""Holds every method to what its paper claims of models in such a condition."""

from collections.abc import Callable
from typing import Any

from longreach.core import registry
from longreach.core.errors import LongreachError
from longreach.core.method import Claim, Condition
from longreach.evaluation.claims.base import ClaimBench, LeftOut, Metric
from longreach.evaluation.evidence import Number, claim_row


def claim_rows(bench: ClaimBench, conditions: tuple[Condition, ...], *, say: Callable[[str], None], **facts: str) -> list[dict[str, Any]]:
    """A row of the evidence table for each claim that can be held against the model.

    Args: conditions: of models that the bench has. say: is told each verdict, and why a claim is left out. facts: model, data, command.
    """
    rows = []
    bench.subject.standard(start=bench.subject.window)  # what is wrong with the text or the lengths stops here, and not claim by claim
    for method in registry.methods():
        name = method.name()
        for claim in method.info.claims:
            try:
                metric = _metric(claim, conditions)
                if method.info.fitted and name not in bench.fitted:
                    raise LeftOut("no file of `longreach fit` is given")
                at = bench.for_claim(claim)
                finding: Number = metric.take(name, at)
            except LongreachError as error:
                say(f"{name}: {error}; its claim is left out")
                continue
            setting = f"`{finding.spec}`, {bench.subject.window} to {at.to} tokens"
            row = claim_row(name, claim, finding, setting=setting, metric=metric.meaning, **facts)
            mean, low, high = finding.interval
            say(f"{name}: {metric.meaning} {mean:.3g} ({low:.3g} to {high:.3g}, {finding.of}): {row['verdict']}")
            rows.append(row)
    return rows


def _metric(claim: Claim, conditions: tuple[Condition, ...]) -> Metric:
    """Raises: LeftOut for a claim that is not about such models, or has no number here."""
    if claim.metric not in registry.names("metric"):
        raise LeftOut(f"{claim.metric} is taken by an experiment, on a model of its own")
    if claim.condition not in conditions:
        raise LeftOut(f"it is about {claim.condition} models")
    metric: Metric = registry.module(claim.metric, "metric").METRIC
    return metric
