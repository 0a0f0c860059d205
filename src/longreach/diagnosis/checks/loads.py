"""Whether the installed transformers can load the config and build the model."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import transformers

from longreach.diagnosis.base import CONFIG, Edit, Finding, Patient, Severity
from longreach.diagnosis.fix import edited_files
from longreach.diagnosis.spelling import respelling
from longreach.diagnosis.used import read_used


def check(patient: Patient) -> Iterator[Finding]:
    """A config that cannot be loaded, with a respelling where that can be."""
    if patient.used.failure is None:
        return
    what = "load config.json" if patient.used.config is None else "build the model"
    edits = _that_help(patient, respelling(patient))
    remedy = "write the values as this transformers spells them" if edits else "correct what it names, or install another transformers"
    yield Finding(
        severity=Severity.ERROR,
        what=f"transformers {transformers.__version__} cannot {what}: {patient.used.failure}",
        remedy=remedy,
        edits=edits,
    )


def _that_help(patient: Patient, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """The edits, if the config can be loaded with them."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in edited_files({CONFIG: patient.raw}, edits).items():
            (Path(scratch) / name).write_text(text, encoding="utf-8")
        return edits if edits and read_used(Path(scratch)).failure is None else ()
