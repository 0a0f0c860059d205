"""Examines a checkpoint folder: reads what it says, asks transformers what it uses, and runs every check."""

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from longreach.checkpoints import _safety
from longreach.checkpoints.record import read_record
from longreach.core.errors import LongreachError
from longreach.diagnosis import checks
from longreach.diagnosis.base import CONFIG, GENERATION, TOKENIZER, Edit, Finding, Patient, Severity
from longreach.diagnosis.fix import edited_files
from longreach.diagnosis.used import one_line, read_used

_ROUNDS = 8  # corrections one after the other; each is made on what the one before has left


def admit(folder: Path, name: str, *, checkpoint: Path | None = None, trust_remote_code: bool = False) -> Patient:
    """Read a checkpoint folder; no weights are loaded. Args: checkpoint: where the weights are, if not in the folder.

    Raises: CheckpointError for JSON that cannot be read, and for a checkpoint that needs code of its own and may not run it.
    """
    if not trust_remote_code:
        _safety.check_no_code(folder, name)
    return Patient(
        checkpoint=checkpoint or folder,
        name=name,
        raw=_safety.read_json(folder / CONFIG),
        used=read_used(folder, trust_remote_code=trust_remote_code),
        tokenizer=_optional(folder / TOKENIZER),
        generation=_optional(folder / GENERATION),
        record=read_record(folder),
    )


def check_names() -> list[str]:
    """The checks: the modules of `checks`."""
    return sorted(module.name for module in pkgutil.iter_modules(checks.__path__))


def diagnose(patient: Patient) -> list[Finding]:
    """What every check says, the worst first."""
    found: list[Finding] = []
    for name in check_names():
        module = importlib.import_module(f"{checks.__name__}.{name}")
        try:
            found += [replace(finding, check=name) for finding in module.check(patient)]
        except LongreachError:
            raise
        except Exception as error:  # noqa: BLE001 - config.json may hold any kind of value anywhere
            found.append(_unreadable(name, error))
    return sorted(found, key=lambda finding: -finding.severity)


def _unreadable(check: str, error: Exception) -> Finding:
    return Finding(
        check=check,
        severity=Severity.ERROR,
        what=f"config.json holds a value of a wrong kind: {one_line(error)}",
        remedy="write numbers as numbers and dicts as dicts; other findings say where they do not",
    )


def corrections(patient: Patient, scratch: Path, *, trust_remote_code: bool = False) -> dict[str, str]:
    """The text of each file that has to change until no finding can be corrected any more; `scratch`: an empty folder to try them in."""
    files = {CONFIG: patient.raw, TOKENIZER: patient.tokenizer, GENERATION: patient.generation}
    changed: dict[str, str] = {}
    for name in files:
        if (patient.checkpoint / name).is_file():
            (scratch / name).write_bytes((patient.checkpoint / name).read_bytes())
    tried: set[tuple[Edit, ...] | str] = set()
    for _ in range(_ROUNDS):
        now = replace_files(patient, scratch, trust_remote_code=trust_remote_code)
        finding = next((each for each in diagnose(now) if each.edits and repr(each.edits) not in tried), None)
        if finding is None:
            break
        tried.add(repr(finding.edits))
        current = {CONFIG: now.raw, TOKENIZER: now.tokenizer, GENERATION: now.generation}
        for name, text in edited_files(current, finding.edits).items():
            (scratch / name).write_text(text, encoding="utf-8")
            changed[name] = text
    return changed


def replace_files(patient: Patient, folder: Path, *, trust_remote_code: bool) -> Patient:
    """The same checkpoint with the JSON files of another folder."""
    return replace(admit(folder, patient.name, trust_remote_code=trust_remote_code), record=patient.record)


def worst(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity, or None where nothing was found."""
    return max((finding.severity for finding in findings), default=None)


def _optional(file: Path) -> dict[str, Any]:
    return _safety.read_json(file) if file.is_file() else {}
