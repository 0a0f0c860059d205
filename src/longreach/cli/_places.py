"""Refuses, before hours of work, places that cannot be written to after them."""

import os
from pathlib import Path

from longreach.core.errors import InputError


def check_writable(folder: Path, option: str) -> None:
    """Raise InputError where `folder` could not be made or filled; `option` is named."""
    nearest = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise InputError(f"{option} {folder} cannot be written to; choose another folder")
