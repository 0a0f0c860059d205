"""Whether config.json states one scaling, or two that differ."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.stated import SINGLE


def check(patient: Patient) -> Iterator[Finding]:
    """Two values of one setting: readers disagree on which to take."""
    for layer_type, said in patient.stated.items():
        for name in SINGLE:
            if claims := said.conflicts(name):
                yield Finding(
                    severity=Severity.ERROR,
                    what=f"config.json states two values{of(layer_type)}: "
                    + " and ".join(f"{claim.where}={claim.value}" for claim in claims)
                    + "; readers disagree on which to take",
                    remedy="find out which one the model was trained with, and take the other out",
                )
