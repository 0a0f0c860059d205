"""Whether config.json still has what longreach.json says was written into it."""

from collections.abc import Iterator
from typing import Any

from longreach.checkpoints.export import edited
from longreach.checkpoints.spelling import spelled_out
from longreach.core.errors import LongreachError
from longreach.core.spec import parse
from longreach.diagnosis.base import Finding, Patient, Severity
from longreach.diagnosis.stated import same
from longreach.engine.rope_config import SCALED_BY, with_rope
from longreach.positions.base import PositionsMethod


def check(patient: Patient) -> Iterator[Finding]:
    """An exported method that another program has taken out of the config."""
    record, config, text = patient.record, patient.used.config, patient.used.text
    if record is None or config is None or text is None or not record.exported or not record.method or record.original is None:
        return
    try:
        (method,) = parse(record.method)
        if not isinstance(method, PositionsMethod):
            return
        wanted = with_rope(edited(config, {SCALED_BY: None, **record.original}), method)
    except (LongreachError, KeyError, ValueError):  # a method of another version: nothing to compare with
        return
    found: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    if any(not same(value, found.get(name)) for name, value in wanted.items()) or (record.target or 0) != patient.window:
        spelled = spelled_out(wanted, patient.text, type(text))
        yield Finding(
            severity=Severity.ERROR,
            what=f"longreach.json says that {record.method} for {record.target} tokens is in config.json, and it is not",
            remedy="a program that saved the config has lost it: write it again",
            edits=patient.edit({**spelled, "max_position_embeddings": record.target, SCALED_BY: record.method}),
        )
