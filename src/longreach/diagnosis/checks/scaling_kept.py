"""Whether the scaling that config.json states is the scaling that transformers uses."""

from collections.abc import Iterator
from typing import Any

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.spelling import respelling
from longreach.diagnosis.stated import ORIGINAL, RENAMED, Stated, same
from longreach.diagnosis.used import UsedRope

_USED_BY = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", ORIGINAL, "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim"),
    "llama3": ("factor", ORIGINAL, "low_freq_factor", "high_freq_factor"),
    "longrope": ("factor", ORIGINAL, "short_factor", "long_factor", "attention_factor"),
}


def check(patient: Patient) -> Iterator[Finding]:
    """Scaling that is stated and not used, or used otherwise."""
    for layer_type, said, used in patient.pairs:
        if not said.unclear and (lost := differences(said, used)):
            stated = ", ".join(f"{name}={value}" for name, value, _ in lost)
            taken = ", ".join(f"{name}={value}" for name, _, value in lost)
            edits = respelling(patient)
            yield Finding(
                severity=Severity.ERROR,
                what=f"scaling{of(layer_type)} is lost: config.json has {stated}, and transformers uses {taken}",
                remedy="state it where this family reads it, in rope_parameters"
                if edits
                else "decide which layer type's values apply to all",
                edits=edits,
            )


def differences(said: Stated, used: UsedRope) -> list[tuple[str, Any, Any]]:
    """(setting, stated, used) of what matters and differs; the base is not among them."""
    rope_type = RENAMED.get(used.rope_type, used.rope_type)
    if said.rope_type != rope_type:
        return [("rope_type", said.rope_type, rope_type)]
    names = (*_USED_BY.get(said.rope_type, ()), "partial_rotary_factor")
    found = [(name, said.get(name), used.parameters.get(name, 1.0 if name == "partial_rotary_factor" else None)) for name in names]
    return [(name, stated, taken) for name, stated, taken in found if stated is not None and not same(stated, taken)]
