"""Whether stated scaling does anything."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.stated import ORIGINAL, Stated


def check(patient: Patient) -> Iterator[Finding]:
    """Scaling without a type, by a factor of 1, or that begins where the window ends."""
    for layer_type, said in patient.stated.items():
        kind, factor, original = said.rope_type, said.get("factor"), said.get(ORIGINAL)
        factor = factor if isinstance(factor, int | float) else None
        if kind == "default" and factor not in (None, 1):
            yield _without_type(said, layer_type, factor)
        elif kind in ("linear", "yarn", "llama3") and factor == 1 and said.get("attention_factor", 1) == 1:
            plain = {name: said.get(name) for name in ("rope_theta", "partial_rotary_factor") if said.get(name) is not None}
            known = layer_type is None and "rope_theta" in plain
            yield Finding(
                severity=Severity.WARNING,
                what=f"{kind}{of(layer_type)} has a factor of 1, which scales nothing",
                remedy="take the scaling out, or give the factor that was meant",
                edits=patient.edit({"rope_parameters": {"rope_type": "default", **plain}, "rope_scaling": None}) if known else (),
            )
        elif kind == "longrope" and _ones(said.get("short_factor")) and _ones(said.get("long_factor")):
            yield Finding(
                severity=Severity.WARNING,
                what=f"all factors of longrope{of(layer_type)} are 1, which scales nothing but the attention",
                remedy="copy short_factor and long_factor from the model that this one comes from",
            )
        if kind != "default" and patient.window and isinstance(original, int | float):
            yield from _beyond(patient, layer_type, kind, original, factor)


def _without_type(said: Stated, layer_type: str | None, factor: float) -> Finding:
    typed = "rope_type" in said.claims
    name = f"rope type {said.get('rope_type')}" if typed else "no rope type"
    return Finding(
        severity=Severity.WARNING if typed else Severity.ERROR,
        what=f"config.json has factor={factor:g}{of(layer_type)} with {name}: nothing is scaled",
        remedy="name the rope_type that the factor is for (linear, dynamic, yarn), or take the factor out",
    )


def _beyond(patient: Patient, layer_type: str | None, kind: str, original: float, factor: float | None) -> Iterator[Finding]:
    window = patient.window or 0
    if original > window or (kind in ("llama3", "longrope") and original == window):
        yield Finding(
            severity=Severity.WARNING,
            what=f"the original window{of(layer_type)} ({original:g}) is not below max_position_embeddings ({window}): nothing is extended",
            remedy="state the tokens before the extension in original_max_position_embeddings",
        )
    elif kind == "dynamic" and factor is not None and window >= original * factor > original:
        yield Finding(
            severity=Severity.WARNING,
            what=f"dynamic scaling begins beyond max_position_embeddings, and that is multiplied already ({window}): it never begins",
            remedy=f"set max_position_embeddings to {original:g}; readers multiply it themselves",
            edits=patient.edit({"max_position_embeddings": int(original)}),
        )


def _ones(factors: object) -> bool:
    return isinstance(factors, list) and all(value == 1 for value in factors)
