"""Replaces a folder as a whole: whenever the process dies, there is one whole folder, the old one or the new one.

The new folder is written beside the old one under a hidden name and flushed to disk; then the old one is renamed aside, the new one
renamed into place, and the old one deleted. Between the two renames nothing stands at the place itself: both folders exist, the new one
is complete, and `heal` finishes what was begun.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new, empty folder to fill; when the block ends it stands at `folder`, in place of what stood there.

    After an exception (in the block or here) what stood at `folder` stands there still, and the new folder is gone.
    """
    heal(folder)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    for left_over in (old, new):  # of a process that was killed; `old` first, so that `new` is complete whenever both exist
        if left_over.exists():
            shutil.rmtree(left_over)
    new.mkdir(parents=True)
    try:
        yield new
        _flush(new)
        if folder.exists():
            os.rename(folder, old)
        try:
            os.rename(new, folder)
        except BaseException:
            if old.exists():
                os.rename(old, folder)
            raise
    except BaseException:
        if folder.exists() or not old.exists():  # else both are kept, for `heal`
            shutil.rmtree(new, ignore_errors=True)  # what stays is removed by the next save
        raise
    _flush_names(folder.parent)
    if old.exists():
        shutil.rmtree(old)


def heal(folder: Path) -> None:
    """Finish the replacement of `folder` where a process was killed between its two renames."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    if not folder.exists() and new.exists() and old.exists():
        os.rename(new, folder)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.longreach-{what}")


def _flush(folder: Path) -> None:
    """Everything in the folder is on disk, not only in the system's memory."""
    for path, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(path, file), "rb") as stream:
                os.fsync(stream.fileno())
        _flush_names(Path(path))


def _flush_names(folder: Path) -> None:
    if os.name != "posix":  # other systems cannot open folders, and write their names at once
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
