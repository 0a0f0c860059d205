"""The loss under a fitted method, beside YaRN's."""

from dataclasses import replace
from pathlib import Path

from longreach.core import registry
from longreach.core.spec import make
from longreach.evaluation.claims.base import ClaimBench, LeftOut, Metric, difference
from longreach.evaluation.evidence import Number


def take(name: str, bench: ClaimBench) -> Number:
    """Of the method with its file for the model."""
    file = bench.fitted[name]
    (yarn, *_) = bench.settings("yarn")
    fitted = bench.rises(make(registry.get(name), {"file": file}).spec)
    if file.data["text_sha256"] == bench.text_sha256:
        if (2 * file.data["windows"], file.data["target"]) != (len(fitted), bench.to):
            raise LeftOut(f"it was fitted on other windows of the same text; give --windows {2 * file.data['windows']}, or another --text")
        fitted = dict(list(fitted.items())[1::2])  # those that `longreach fit` keeps back
    number = difference(f"{name}:file={Path(file.name).name}", fitted, bench.rises(yarn))
    return replace(number, of=f"{number.of}; fitted by {file.data['evaluations']} evaluations on {file.data['windows']} others")


METRIC = Metric(meaning="loss beyond the window above YaRN's, on text that nothing was fitted on, nats a token", take=take)
