"""Writes a corrected copy of a checkpoint."""

import copy
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from longreach.checkpoints._folder import replacing
from longreach.checkpoints.places import MARKER
from longreach.checkpoints.record import Record
from longreach.core.errors import CheckpointError
from longreach.diagnosis.base import Edit


def edited_files(files: Mapping[str, dict[str, Any]], edits: Iterable[Edit]) -> dict[str, str]:
    """The text of each file that the edits change, from what it holds now. A file that is not there begins empty."""
    changed: dict[str, dict[str, Any]] = {}
    for edit in edits:
        inner = changed.setdefault(edit.file, copy.deepcopy(files.get(edit.file, {})))
        *path, last = edit.path
        for step in path:
            inner = inner.setdefault(step, {})
        if edit.value is None:
            inner.pop(last, None)
        else:
            inner[last] = copy.deepcopy(edit.value)
    return {name: json.dumps(data, indent=2, ensure_ascii=False) + "\n" for name, data in changed.items()}


def write_copy(source: Path, target: Path, files: Mapping[str, str]) -> None:
    """Copy a checkpoint byte for byte, but for `files`. Whatever happens meanwhile, `target` holds all of the copy or what it held before.

    Args: target: as `place_of` has approved it.
    Raises: CheckpointError where it cannot be written.
    """
    try:
        with replacing(target) as new:
            shutil.copytree(source, new, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
            for name, text in files.items():
                (new / name).unlink(missing_ok=True)  # it may be a link, as in the hub's cache
                (new / name).write_text(text, encoding="utf-8")
            if not (new / MARKER).is_file():
                Record().write(new)
    except (OSError, shutil.Error) as error:
        raise CheckpointError(f"cannot write {target}: {error}; nothing was changed there") from error
