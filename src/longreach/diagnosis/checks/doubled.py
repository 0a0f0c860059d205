"""Whether positions are scaled twice, or the window is larger than the scaling reaches."""

import math
from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.stated import ORIGINAL, Stated
from longreach.diagnosis.used import UsedRope

_BASES = (10_000.0, 500_000.0, 1_000_000.0)  # what most models are trained with


def check(patient: Patient) -> Iterator[Finding]:
    """A window that is multiplied twice, an enlarged base under a factor."""
    for layer_type, said, used in patient.pairs:
        if said.rope_type in ("linear", "yarn", "dynamic"):
            yield from _base(patient, layer_type, said, used)
        if said.rope_type in ("linear", "yarn"):
            yield from _window(patient, layer_type, said)


def _base(patient: Patient, layer_type: str | None, said: Stated, used: UsedRope) -> Iterator[Finding]:
    factor, base = said.get("factor"), said.get("rope_theta")
    if used.inv_freq is None or not isinstance(factor, int | float) or not isinstance(base, int | float) or factor <= 1:
        return
    dim = 2 * len(used.inv_freq)
    if dim == 2:  # its only frequency is the same under any base
        return
    for plain in {*_BASES, patient.used.default_theta}:
        if math.isclose(base, plain * factor ** (dim / (dim - 2)), rel_tol=1e-3):
            yield Finding(
                severity=Severity.ERROR,
                what=f"positions{of(layer_type)} are scaled twice: by {said.rope_type}, factor {factor:g}, and by a base of {base:.10g}, "
                f"which is {plain:g} enlarged for the same factor",
                remedy=f"keep one of them: set rope_theta to {plain:g}, or take {said.rope_type} out",
            )


def _window(patient: Patient, layer_type: str | None, said: Stated) -> Iterator[Finding]:
    factor, original, window = said.get("factor"), said.get(ORIGINAL), patient.window
    if not isinstance(factor, int | float) or not isinstance(original, int | float) or window is None:
        return
    reach = original * factor
    if window > reach * 1.001:
        twice = math.isclose(window, reach * factor)
        yield Finding(
            severity=Severity.ERROR if twice else Severity.WARNING,
            what=f"config.json claims {window} tokens, and {said.rope_type} stretches {original:g} by {factor:g} to {reach:g}"
            + (": the window was multiplied twice" if twice else ""),
            remedy=f"set max_position_embeddings to {reach:g}, or raise the factor",
            edits=patient.edit({"max_position_embeddings": int(reach)}),
        )
    elif said.rope_type == "linear" and math.isclose(window, reach):
        yield Finding(
            severity=Severity.WARNING,
            what=f"max_position_embeddings ({window}) holds the factor already; vLLM multiplies it again, to {window * factor:g}",
            remedy=f"serve with --max-model-len {window}",
        )
