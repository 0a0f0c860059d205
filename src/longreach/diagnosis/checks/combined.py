"""Whether a method was put on top of a scaling that the checkpoint had before."""

from collections.abc import Iterator

from longreach.checkpoints.export import edited
from longreach.core.spec import parse
from longreach.diagnosis.base import Finding, Patient, Severity
from longreach.engine.rope_config import SCALED_BY, scaled_before
from longreach.positions.base import PositionsMethod


def check(patient: Patient) -> Iterator[Finding]:
    """What longreach combined, and where it stands now."""
    record, config, text = patient.record, patient.used.config, patient.used.text
    if record is None or config is None or text is None or not record.method:
        return
    if not record.exported:
        if (scaled := scaled_before(config)) and any(isinstance(method, PositionsMethod) for method in parse(record.method)):
            yield Finding(
                severity=Severity.NOTE,
                what=f"longreach.json applies {record.method} on top of {scaled}, which config.json states",
                remedy="load it with longreach.load, which does both; if another program has scaled it since, take that out",
            )
    elif record.original is not None and (scaled := _before(patient, record.original)):
        yield Finding(
            severity=Severity.NOTE,
            what=f"{record.method} stands on top of {scaled}, which the checkpoint had before; config.json states both as one "
            f"({scaled_before(config) or 'a larger base'})",
            remedy="none is needed; saved with an empty method, it is again as it was before",
        )


def _before(patient: Patient, original: dict[str, object]) -> str | None:
    config = edited(patient.used.config, {SCALED_BY: None, **original})  # type: ignore[arg-type]  # the caller has one
    return getattr(config.get_text_config(), SCALED_BY, None) or scaled_before(config)
