"""`longreach doctor`: what a checkpoint says about its positions, and what is true."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longreach.checkpoints.choices import check_choices
from longreach.checkpoints.places import checkpoint_name, local_checkpoint, place_of
from longreach.cli._options import AllowPickle, Device, Dtype, Revision, TrustRemoteCode, open_rows
from longreach.cli._tables import new_table, show
from longreach.core.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from longreach.diagnosis.base import Finding, Patient
    from longreach.diagnosis.memory import MemoryPlan
    from longreach.evaluation.usable import UsableLength

_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def doctor(
    model: Annotated[str, typer.Argument(help="A folder, a GGUF file, a hub id, or nano.")],
    fix: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a corrected copy here, where something can be corrected.")] = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON Lines with measured results. [default: longreach-results/rows/MODEL.jsonl]")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts at a time, for the memory plan.")] = 1,
    no_load: Annotated[bool, typer.Option("--no-load", help="Do not load the weights; weigh the cache on the model's shape.")] = False,
    revision: Revision = None,
    dtype: Dtype = None,
    device: Device = None,
    allow_pickle: AllowPickle = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Tell what a checkpoint says about its positions, what is true, and how long a text fits into memory.

    Exits with 1 where an error is found (with --fix: where one is left in the copy).
    """
    check_choices(dtype, device, None, False, None)
    here = local_checkpoint(model, revision)
    target = None if fix is None else _place(fix, here)
    if rows is not None and not rows.is_file():
        raise InputError(f"cannot read rows from {rows}: no such file")
    name = checkpoint_name(model, revision)

    from longreach.diagnosis.diagnose import worst
    from longreach.diagnosis.doctor import doctor as examine

    found = examine(
        model, revision=revision, rows=open_rows(rows, name), batch_size=batch_size, load_weights=not no_load, dtype=dtype, device=device,
        allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, name=name,
    )  # fmt: skip
    patient, plan, findings = found.patient, found.plan, list(found.findings)
    usable = found.usable
    if usable is None and rows is not None:
        usable = f"{rows} has no rows of {name} without a method"
    left, files = findings, list[str]()
    if target is not None:
        left, files = _correct(patient, target, findings, trust_remote_code=trust_remote_code)
    if as_json:
        print(json.dumps(_data(patient, plan, usable, findings, fix, left, files)))
    else:
        _show(patient, plan, usable, findings)
        _show_fix(fix, findings, left, files)
    if worst(left) == 2:  # Severity.ERROR
        raise typer.Exit(1)


def _place(fix: Path, folder: Path | None) -> Path:
    """Where the corrected copy will stand."""
    place = place_of(fix)
    if folder is not None and folder.is_file():
        raise InputError(f"--fix corrects the JSON files of a folder, and {folder} is a GGUF file; load and save it as a folder first")
    if folder is not None and place.is_relative_to(folder.resolve()):
        raise InputError(f"--fix {fix} lies in the checkpoint itself; choose another folder")
    return place


def _correct(patient: "Patient", target: Path, findings: list["Finding"], *, trust_remote_code: bool) -> tuple[list["Finding"], list[str]]:
    """Write the corrected copy, examine it, and say what is left and which files changed; nothing is written where nothing changes."""
    from longreach.diagnosis.diagnose import admit, check_names, corrections, diagnose
    from longreach.diagnosis.fix import write_copy

    with tempfile.TemporaryDirectory() as scratch:
        files = corrections(patient, Path(scratch), trust_remote_code=trust_remote_code)
    if not files:
        return findings, []
    write_copy(patient.checkpoint, target, files)
    kept = [finding for finding in findings if finding.check not in check_names()]  # weights and rows are what they were
    return [*diagnose(admit(target, patient.name, trust_remote_code=trust_remote_code)), *kept], sorted(files)


def _data(
    patient: "Patient", plan: "MemoryPlan", usable: "UsableLength | str | None", findings: list["Finding"], fix: Path | None,
    left: list["Finding"], files: list[str],
) -> dict[str, Any]:  # fmt: skip
    import transformers

    from longreach.diagnosis.readers import gguf_keys, transformers_4, vllm_window

    old = transformers_4(patient) if patient.pairs else None
    measured = None if usable is None or isinstance(usable, str) else usable.as_json()
    return {
        "model": patient.name,
        "transformers": transformers.__version__,
        "positions": patient.used.kind,
        "window": patient.window,
        "stated": {key or "all": said.parameters for key, said in patient.stated.items()} if patient.used.kind == "rotary" else {},
        "used": {
            key or "all": {
                "parameters": rope.parameters,
                "inv_freq": None if rope.inv_freq is None else rope.inv_freq.tolist(),
                "attention_scaling": rope.attention_scaling,
            }
            for key, rope in patient.used.ropes.items()
        },
        "readers": {
            "transformers 4": None if old is None else asdict(old),
            "vllm": {"window": vllm_window(patient)},
            "llama.cpp": gguf_keys(patient),
        },
        "memory": {**asdict(plan), "per_1k": plan.per_1k, "fits": plan.fits, "unlimited": plan.unlimited},
        "usable": measured,
        "findings": [_finding(finding) for finding in findings],
        "fix": None if fix is None else {"folder": str(fix) if files else None, "files": files, "left": [_finding(each) for each in left]},
    }


def _finding(finding: "Finding") -> dict[str, Any]:
    return {
        "severity": finding.severity.name.lower(),
        "check": finding.check,
        "what": finding.what,
        "remedy": finding.remedy,
        "fixable": bool(finding.edits),
    }


def _show(patient: "Patient", plan: "MemoryPlan", usable: "UsableLength | str | None", findings: list["Finding"]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    window = "no stated window" if patient.window is None else f"window {patient.window} tokens"
    family = patient.text.get("model_type", "unknown family")
    console.print(f"{patient.name}: {family}, positions: {patient.used.kind}, {window}", soft_wrap=True, style="bold", markup=False)
    if patient.pairs:
        show(console, _ropes(patient))
    for line in memory_lines(plan, patient.window):
        console.print(line, soft_wrap=True, markup=False)
    if usable is not None:
        console.print(usable if isinstance(usable, str) else str(usable), soft_wrap=True, markup=False)
    if findings:
        console.print(_findings(findings))


def _ropes(patient: "Patient") -> "Table":
    """What config.json says beside what is used, a row for each setting."""
    import transformers

    from longreach.diagnosis.readers import gguf_keys, transformers_4
    from longreach.diagnosis.stated import ORIGINAL

    old, keys = transformers_4(patient), gguf_keys(patient)
    says = "config.json says" if patient.checkpoint.is_dir() else "the file says"
    table = new_table("", says, f"transformers {transformers.__version__} uses", "transformers 4 reads", "in GGUF")
    names = {  # of the readings, and of GGUF
        "rope_theta": ("base", "rope.freq_base"),
        "rope_type": ("rope_type", "rope.scaling.type"),
        "factor": ("factor", "rope.scaling.factor"),
        ORIGINAL: ("", "rope.scaling.original_context_length"),
    }
    for key, said, used in patient.pairs:
        stated = said.parameters
        for name in dict.fromkeys(["rope_type", "rope_theta", *stated, *used.parameters]):
            if name == "type":
                continue
            field, gguf = names.get(name, ("", f"rope.scaling.{name}"))
            before = getattr(old, field, None) if old is not None and key is None else None
            written = keys.get(gguf) if key in (None, "full_attention") else None
            table.add_row(f"{key}: {name}" if key else name, *map(_cell, (stated.get(name), used.parameters.get(name), before, written)))
        if used.attention_scaling != 1:
            table.add_row("cos and sin times", "", f"{used.attention_scaling:.4g}", "", "")
    return table


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} values"
    return "" if value is None else f"{value:.10g}" if isinstance(value, float) else str(value)


def memory_lines(plan: "MemoryPlan", window: int | None = None) -> list[str]:
    """The memory plan in words."""
    from longreach.checkpoints._safety import amount

    lines = [] if plan.weights is None else [f"Weights: {amount(plan.weights)} in {plan.dtype}."]
    if not plan.layers:
        return [*lines, "The cache of this model could not be weighed."]
    how = "measured" if plan.measured else "weighed on the model's shape, without its weights"
    sliding = sum(layer.limit is not None for layer in plan.layers)
    limited = f"; {sliding} of {len(plan.layers)} layers keep a sliding window only" if sliding else ""
    apart = plan.computed_per_1k is not None and abs(plan.computed_per_1k - plan.per_1k) > 0.01 * plan.computed_per_1k
    alone = f"; by the config alone it would be {amount(plan.computed_per_1k or 0)}" if apart else ""
    lines.append(f"Cache: {amount(plan.per_1k)} for each 1024 tokens of a text ({how}{limited}{alone}).")
    if plan.unlimited:
        lines.append(f"Its memory stops growing: {amount(plan.cache_bytes(10**9))} for any length, at batch size {plan.batch_size}.")
    elif plan.free is None or plan.weights is None:
        lines.append("How much fits is not known: the free memory or the weights are not.")
    else:
        where = f"{amount(plan.free)} free on {plan.device}, batch size {plan.batch_size}, {plan.dtype}"
        beside = "" if window is None else f"; its window is {window}"
        lines.append(f"Fits into memory: {plan.fits} tokens ({where}){beside}." if plan.fits else f"It does not fit into memory ({where}).")
    return lines


def _findings(findings: list["Finding"]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    table.add_column("finding, and what to do about it", overflow="fold")
    for finding in findings:
        severity = finding.severity.name.lower()
        remedy = f"{finding.remedy[:1].upper()}{finding.remedy[1:]}."
        table.add_row(Text(severity, style=_STYLES[severity]), Text.assemble(f"{finding.what}.\n", (remedy, "italic")))
    return table


def _show_fix(fix: Path | None, findings: list["Finding"], left: list["Finding"], files: list[str]) -> None:
    fixable = sum(bool(finding.edits) for finding in findings)
    print(f"{_counts(findings)}{f'; --fix DIR corrects {fixable} of them' if fixable and fix is None else ''}.")
    if fix is not None and not files:
        print(f"Nothing can be corrected automatically; {fix} was not written.")
    elif fix is not None:
        print(f"Written: {fix}, with {' and '.join(files)} corrected. Examined again: {_counts(left)}.")
        for finding in left:
            print(f"  {finding.severity.name.lower()}: {finding.what}. {finding.remedy[:1].upper()}{finding.remedy[1:]}.")


def _counts(findings: list["Finding"]) -> str:
    counts = {name: sum(finding.severity.name.lower() == name for finding in findings) for name in _STYLES}
    return ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items() if count) or "No findings"
