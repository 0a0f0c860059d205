"""`longreach.json`: what longreach writes beside a checkpoint, so that the checkpoint comes back as it was saved."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import longreach
from longreach.checkpoints._safety import read_json
from longreach.checkpoints.places import MARKER
from longreach.core.errors import CheckpointError, SpecError
from longreach.core.fitting import fitted_by, remember
from longreach.core.method import Method
from longreach.core.spec import parse

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was done to a checkpoint.

    Args: method: spec, or None. exported: the config says it all, nothing is applied when it is loaded. trained_window: tokens before any
    method. target: tokens it was saved for. original: the config's values before an export, by which it can be taken back. fitted: by
    digest, the contents of the fitted files that the method names, so that the checkpoint does not need them.
    """

    method: str | None = None
    exported: bool = True
    trained_window: int | None = None
    target: int | None = None
    original: dict[str, Any] | None = None
    fitted: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write the record into a checkpoint folder."""
        data = {"format": FORMAT, "longreach": longreach.__version__, **asdict(self)}
        (folder / MARKER).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_record(folder: Path) -> Record | None:
    """The record of a checkpoint folder, or None where longreach did not write it.

    Raises: CheckpointError for a record of another format, or with a method that is not known here.
    """
    file = folder / MARKER
    if not file.is_file():
        return None
    data = read_json(file)
    if data.get("format") != FORMAT:
        raise CheckpointError(
            f"{file} has format {data.get('format')!r} (longreach {data.get('longreach', 'unknown')}) and this is longreach "
            f"{longreach.__version__}, which reads format {FORMAT}; install the longreach that wrote it, or a newer one"
        )
    fields: dict[str, Any] = {key: data.get(key) for key in Record.__dataclass_fields__}
    wanted = {
        "method": str | None, "exported": bool, "trained_window": int | None, "target": int | None, "original": dict | None,
        "fitted": dict | None,
    }  # fmt: skip
    wrong = [key for key, kind in wanted.items() if not isinstance(fields[key], kind)]
    if wrong or (not fields["exported"] and None in (fields["method"], fields["trained_window"], fields["target"])):
        raise CheckpointError(f"{file} is damaged: {', '.join(f'{key}={fields[key]!r}' for key in wrong or wanted)}")
    record = Record(**fields)
    _remember_fitted(record, file)
    if record.method and not record.exported:
        try:
            parse(record.method)
        except SpecError as error:
            why = f"which longreach {longreach.__version__} cannot apply: {error}"
            raise CheckpointError(f"{file} asks for {record.method}, {why}") from None
    return record


def _remember_fitted(record: Record, file: Path) -> None:
    """What the record's method was fitted to is found from now on without its files."""
    for digest, contents in (record.fitted or {}).items():
        try:
            whole = remember(contents) == digest
        except SpecError:
            whole = False
        if not whole:
            raise CheckpointError(f"{file} is damaged: what {record.method} was fitted to is not what it was when it was saved")


def fitted_in(stack: Iterable[Method]) -> dict[str, Any] | None:
    """What a record keeps of the fitted files among the settings of some methods."""
    return {digest: contents for method in stack for digest, contents in fitted_by(method).items()} or None
