"""Whether the checkpoint says all of what it is to other programs."""

from collections.abc import Iterator

from longreach.diagnosis.base import Finding, Patient, Severity


def check(patient: Patient) -> Iterator[Finding]:
    """A method that only longreach applies."""
    record = patient.record
    if record is not None and record.method and not record.exported:
        yield Finding(
            severity=Severity.WARNING,
            what=f"longreach.json names {record.method}, which only longreach applies: other programs run the model without it",
            remedy="load it with longreach.load; for other programs stretch it by a method that exports, as yarn",
        )
