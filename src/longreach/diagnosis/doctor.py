"""Examines a checkpoint from outside to inside: its files, the model that is made of them, its memory, and what was measured of it."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from longreach.checkpoints.adapters import check_is_model
from longreach.checkpoints.checkpoint import find_checkpoint
from longreach.checkpoints.choices import check_choices
from longreach.checkpoints.gguf import spread
from longreach.checkpoints.placement import find_device
from longreach.checkpoints.places import checkpoint_name
from longreach.core.errors import InputError
from longreach.diagnosis.base import Finding, Patient, Severity
from longreach.diagnosis.diagnose import admit, diagnose
from longreach.diagnosis.memory import MemoryPlan
from longreach.diagnosis.plan import make_plan
from longreach.engine.window import trained_window
from longreach.evaluation.rows import Rows
from longreach.evaluation.usable import UsableLength, usable_length


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What a checkpoint says about its positions, and what is true; printed, a line for each finding.

    Args: patient: the checkpoint, as it is stated and as transformers uses it. findings: the worst first. plan: of the memory that a text
    takes. usable: the measured usable length of the checkpoint as it is, why it cannot be told, or None where nothing was measured.
    """

    patient: Patient
    findings: tuple[Finding, ...]
    plan: MemoryPlan
    usable: UsableLength | str | None

    def __str__(self) -> str:
        return "\n".join(f"{each.severity.name.lower()}: {each.what}. Remedy: {each.remedy}." for each in self.findings) or "No findings."


def doctor(
    checkpoint: str | Path,
    *,
    revision: str | None = None,
    rows: Rows | str | Path | None = None,
    batch_size: int = 1,
    load_weights: bool = True,
    dtype: str | None = None,
    device: str | torch.device | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    name: str | None = None,
) -> Diagnosis:
    """Tell what a checkpoint says about its positions, what is true, and how long a text fits into memory.

    Args: checkpoint: a folder, a GGUF file, a hub id, the link of a hub page, or `nano`. rows: JSON Lines with what was measured of it.
    batch_size: texts at a time, for the memory plan. load_weights: run the model itself where it fits into memory; otherwise its shape
    alone. name: what the rows call the model (default: the own name of its folder or file, or the hub id). revision, dtype, device,
    allow_pickle, trust_remote_code: those of `load`.

    Raises: CheckpointError for what is no checkpoint, or cannot be read; InputError for arguments that cannot be.
    """
    if not isinstance(checkpoint, str | Path):
        raise InputError(f"give a folder, a GGUF file, a hub id or nano, not a {type(checkpoint).__name__}")
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    if isinstance(rows, str | Path) and not Path(rows).is_file():
        raise InputError(f"cannot read rows from {rows}: no such file")
    check_choices(dtype, device, None, False, None)
    place = find_device(device)
    here = find_checkpoint(
        str(checkpoint), revision=revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, weights=load_weights
    )
    name = name or checkpoint_name(str(checkpoint), revision)
    with spread(here, str(checkpoint), tokenizer=False) as folder:
        check_is_model(folder, str(checkpoint))
        patient = admit(folder, name, checkpoint=here, trust_remote_code=trust_remote_code)
    plan, about_weights, weights = make_plan(
        patient, device=place, dtype=dtype, batch_size=batch_size, load_weights=load_weights, allow_pickle=allow_pickle,
        trust_remote_code=trust_remote_code,
    )  # fmt: skip
    usable = _usable(patient, Rows.of(rows), weights)
    found = [*diagnose(patient), *about_weights, *_about_usable(patient, usable)]
    if here.is_file():
        found = [_of_file(each) for each in found]
    return Diagnosis(patient=patient, findings=tuple(sorted(found, key=lambda each: -each.severity)), plan=plan, usable=usable)


def _of_file(finding: Finding) -> Finding:
    """A finding about a GGUF file, which has no JSON files to correct."""
    what, remedy = (words.replace("config.json", "the file") for words in (finding.what, finding.remedy))
    return replace(finding, what=what, remedy=remedy, edits=())


def _usable(patient: Patient, rows: Rows, weights: str | None) -> UsableLength | str | None:
    """The measured usable length of the checkpoint as it is, why it cannot be told, or None where nothing was measured.

    Args: weights: their fingerprint; None where they were not loaded, and rows go by the name alone.
    """
    named = [row for row in rows if row.model == patient.name and not row.method]
    found = [row for row in named if weights is None or row.settings.get("weights", weights) == weights]
    config = patient.used.config
    if not named or config is None:
        return None
    if not found:
        return f"What was measured of {patient.name} was measured on other weights, or in another dtype."
    try:
        record = patient.record
        before = record.trained_window if record is not None and record.exported and record.method else None
        return usable_length(found, before or trained_window(config))
    except InputError as error:
        return str(error)


def _about_usable(patient: Patient, usable: UsableLength | str | None) -> list[Finding]:
    """What it means for the window that the checkpoint claims."""
    if usable is None or isinstance(usable, str) or patient.window is None:
        return []
    wanted = min(patient.window, usable.measured_to)
    reached = min((length for length in (usable.by_loss, usable.by_retrieval) if length is not None), default=wanted)
    missed = min((length for length in (usable.risen_at, usable.missed_at) if length is not None), default=wanted + 1)
    opened = next((each for each in (usable.open_loss, usable.open_retrieval) if each is not None and each.length <= wanted), None)
    if missed <= wanted:
        far = f"can be used up to {reached} tokens" if reached else f"cannot be used at {missed} tokens"
        what = f"measured, it {far}, and its window is {patient.window}"
        remedy = f"keep texts {f'to {reached} tokens' if reached else 'shorter'}, or find a method with `longreach stretch`"
        return [Finding(check="usable", severity=Severity.WARNING, what=what, remedy=remedy)]
    if reached < wanted and opened is not None:
        what = f"too little was measured to say whether it can be used up to its window of {patient.window} ({opened})"
        return [Finding(check="usable", severity=Severity.NOTE, what=what, remedy="measure more windows and samples")]
    return []
