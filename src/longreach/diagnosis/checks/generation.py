"""Whether generation_config.json ends texts before the window does."""

from collections.abc import Iterator

from longreach.diagnosis.base import GENERATION, Edit, Finding, Patient, Severity


def check(patient: Patient) -> Iterator[Finding]:
    """A `max_length`, which counts the prompt, below the window."""
    length = patient.generation.get("max_length")
    if isinstance(length, int) and patient.window is not None and length < patient.window:
        yield Finding(
            severity=Severity.WARNING,
            what=f"generation_config.json ends prompt and answer together at max_length={length}, and the window is {patient.window}",
            remedy="take max_length out, and give max_new_tokens where you generate",
            edits=(Edit(file=GENERATION, path=("max_length",), value=None),),
        )
