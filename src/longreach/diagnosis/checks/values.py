"""Whether values are of the right kind, in range, and under names that are read."""

from collections.abc import Iterator
from typing import Any

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.expected import attention_factor
from longreach.diagnosis.spelling import respelling
from longreach.diagnosis.stated import Stated


def check(patient: Patient) -> Iterator[Finding]:
    """Text for numbers, factors below 1, bounds in the wrong order, names that only some readers know."""
    for layer_type, said in patient.stated.items():
        for name, least in (("rope_theta", 1.0), ("factor", 0.999)):
            value = said.get(name)
            if isinstance(value, str):
                yield _error(f"{name}{of(layer_type)} is text ({value!r}), not a number", "write it as a number", respelling(patient))
            elif value is not None and not (isinstance(value, int | float) and value > least):
                yield _error(
                    f"{name}={value}{of(layer_type)} is out of range", f"write a number {'above' if least == 1 else 'of at least'} 1"
                )
        if said.rope_type == "llama3" and not _ordered(said, "low_freq_factor", "high_freq_factor"):
            yield _error(f"low_freq_factor{of(layer_type)} is not below high_freq_factor", "swap them")
        if said.rope_type == "yarn" and not _ordered(said, "beta_slow", "beta_fast", 1.0, 32.0):
            yield _error(f"beta_slow{of(layer_type)} is not below beta_fast", "swap them")
        if said.rope_type == "yarn" and "factor" not in said.claims and patient.used.failure is None:
            yield Finding(
                severity=Severity.WARNING,
                what=f"yarn{of(layer_type)} states no factor; transformers divides the window by the original one, and vLLM fails",
                remedy="state the factor",
                edits=respelling(patient),
            )
        if said.rope_type == "yarn" and said.get("attn_factor") not in (None, 1) and said.get("attention_factor") is None:
            yield _attn_factor(patient, layer_type, said)


def _attn_factor(patient: Patient, layer_type: str | None, said: Stated) -> Finding:
    """The name by which YaRN's own code and vLLM know it, as a multiplier; transformers ignores it and knows the product."""
    factor, share = said.get("factor"), said.get("attn_factor")
    what = f"attn_factor={share}{of(layer_type)} is read by vLLM and ignored by transformers"
    if not isinstance(factor, int | float) or not isinstance(share, int | float):
        return Finding(severity=Severity.WARNING, what=what, remedy="state attention_factor beside it")
    usual = attention_factor({}, factor)
    parameters = {**said.parameters, "attention_factor": round(usual * share, 6)}
    flat = layer_type is None and said.get("rope_theta") is not None
    return Finding(
        severity=Severity.WARNING,
        what=f"{what}, which scales cos and sin by {usual:.4g}",
        remedy=f"state attention_factor={usual * share:.6g} beside it",
        edits=patient.edit({"rope_parameters": parameters, "rope_scaling": None}) if flat else (),
    )


def _error(what: str, remedy: str, edits: tuple[Any, ...] = ()) -> Finding:
    return Finding(severity=Severity.ERROR, what=what, remedy=remedy, edits=edits)


def _ordered(said: Stated, low: str, high: str, usual_low: float = 0.0, usual_high: float = float("inf")) -> bool:
    small, large = said.get(low, usual_low), said.get(high, usual_high)
    return not (isinstance(small, int | float) and isinstance(large, int | float)) or bool(small < large)
