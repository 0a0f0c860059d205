"""Whether the base that config.json states is the base that transformers uses, and whether it is stated once."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.spelling import respelling, two_bases
from longreach.diagnosis.stated import ORIGINAL, Stated, same

_PLAIN_REACH = 8192  # tokens; models whose base is 10000 were trained on fewer, but for those that say so


def check(patient: Patient) -> Iterator[Finding]:
    """A base that is lost, stated twice, or not stated at all."""
    for layer_type, said, used in patient.pairs:
        base, taken = said.get("rope_theta"), used.parameters.get("rope_theta")
        claims = said.conflicts("rope_theta")
        if base is None:
            yield from _unstated(patient, taken, said)
        elif two_bases(patient, said):
            yield Finding(
                severity=Severity.ERROR,
                what=f"config.json states two bases{of(layer_type)}: {_listed(said)}; transformers takes {_plain(taken)}, others the other",
                remedy="find out which one the model was trained with, and write that one in both places",
            )
        elif not same(base, taken) and taken is not None:
            yield Finding(
                severity=Severity.ERROR,
                what=f"the base{of(layer_type)} is lost: config.json has {_listed(said)}, and transformers uses {_plain(taken)}",
                remedy="state it as rope_theta in rope_parameters",
                edits=respelling(patient),
            )
        elif claims:
            yield Finding(
                severity=Severity.WARNING,
                what=f"config.json states two bases{of(layer_type)}: {_listed(said)}; transformers takes {_plain(taken)}, others the other",
                remedy=f"write {_plain(base)} in both places",
                edits=respelling(patient),
            )


def _unstated(patient: Patient, taken: object, said: Stated) -> Iterator[Finding]:
    window = said.get(ORIGINAL) or patient.window or 0
    if patient.used.layer_types == (None,) and same(taken, 10_000) and (window > _PLAIN_REACH or said.rope_type == "llama3"):
        yield Finding(
            severity=Severity.WARNING,
            what="config.json states no base, and transformers takes 10000, as in models of short windows: it may be lost",
            remedy="look up the model's rope_theta and state it in rope_parameters",
        )


def _listed(said: Stated) -> str:
    return " and ".join(f"{claim.where}={_plain(claim.value)}" for claim in said.claims["rope_theta"])


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) and value < 1e5 else f"{value:.0f}" if isinstance(value, float) else str(value)
