"""Writes files as a whole: whatever happens meanwhile, the old file or the new one stands there, never half of one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; when the block ends, what was written there takes its place, flushed to disk.

    After an exception the old file stands there still, and the new one is gone.
    Raises: OSError, before the block where nothing can be written there; it names `path`, never the place beside it.
    """
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8. Raises: OSError."""
    with replacing_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
