"""Refuses, before hours of work, places that cannot be written to after them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from longreach.core.errors import InputError


def check_texts(paths: Sequence[Path] | None) -> None:
    """Raise InputError for files that cannot be read."""
    for path in paths or ():
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from None


def check_writable(folder: Path, option: str) -> None:
    """Raise InputError where `folder` could not be made or filled; `option` is named."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".longreach-", dir=nearest):  # only trying tells: not all that says it can be can
            return
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written to ({error.strerror}); choose another folder") from None
