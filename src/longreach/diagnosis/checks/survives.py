"""Whether saving the config and loading it again leaves the rotary embeddings as they are."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import transformers
from transformers import AutoConfig

from longreach.diagnosis.base import Finding, Patient, Severity, of
from longreach.diagnosis.stated import same
from longreach.diagnosis.used import one_line, rope_parameters

_REMEDY = "keep the old config.json when you save"


def check(patient: Patient) -> Iterator[Finding]:
    """Values that a save and reload under the installed transformers changes."""
    config, before = patient.used.config, patient.used.ropes
    if config is None or not before:
        return
    saved = f"saving the config with transformers {transformers.__version__} and loading it again"
    try:
        with tempfile.TemporaryDirectory() as scratch:
            config.save_pretrained(scratch)
            text = AutoConfig.from_pretrained(Path(scratch)).get_text_config()
    except Exception as error:  # noqa: BLE001 - configs raise errors of their own
        yield Finding(severity=Severity.ERROR, what=f"{saved} fails: {one_line(error)}", remedy=_REMEDY)
        return
    after = rope_parameters(text)
    for layer_type, used in before.items():
        now = after.get(layer_type, {})
        changed = [name for name, value in used.parameters.items() if not same(value, now.get(name))]
        if changed:
            listed = ", ".join(f"{name}={used.parameters[name]} becomes {now.get(name)}" for name in changed)
            yield Finding(severity=Severity.ERROR, what=f"{saved} changes{of(layer_type)} {listed}", remedy=_REMEDY)
    window = getattr(text, "max_position_embeddings", patient.used.window)
    if window != patient.used.window and getattr(text, "max_position_embeddings", None):
        yield Finding(
            severity=Severity.ERROR,
            what=f"{saved} changes the window from {patient.used.window} to {window}",
            remedy=_REMEDY,
        )
