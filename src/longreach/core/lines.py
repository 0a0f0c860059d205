"""JSON Lines files that outlive a kill: lines are appended whole, and a last one that was torn is taken off when the file is read."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from longreach.core.errors import InputError

T = TypeVar("T")


def append_lines(path: Path, lines: Iterable[str], kind: str) -> None:
    """Append lines, given without their ends, in one write, flushed to disk; the file is made, with its folder, where it is missing.

    Args: kind: what a line is, for messages ("row").
    Raises: InputError where the file cannot be written.
    """
    _append(path, "".join(f"{line}\n" for line in lines).encode(), kind)


def read_lines(path: Path, parse: Callable[[bytes], T | None], kind: str, beginning: bytes) -> tuple[list[T], bool]:
    """What the lines of a file say, and whether an unfinished last line was taken off it. A last line that lacks only its end gets it.

    Args: parse: None for a line that is none of ours. kind: what a line is, for messages. beginning: of every line; what does not
    begin so is no torn line but another file, and is left alone.
    Raises: InputError for a file that cannot be read or has other lines.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {kind}s from {path}: {error.strerror}") from error
    whole = data.rfind(b"\n") + 1
    found = []
    for number, line in enumerate(data[:whole].splitlines(), 1):
        if (said := parse(line)) is None:
            raise InputError(f"{path}: line {number} is not a {kind}; mend the file or name another")
        found.append(said)
    torn = data[whole:]
    if not torn:
        return found, False
    if (said := parse(torn)) is not None:
        _append(path, b"\n", kind)
        return [*found, said], False
    if not beginning.startswith(torn[: len(beginning)]):
        raise InputError(f"{path}: its last line is not a {kind}; mend the file or name another")
    os.truncate(path, whole)
    return found, True


def _append(path: Path, data: bytes, kind: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            while data:  # one write, but for a full disk or a signal
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise InputError(f"cannot write {kind}s to {path}: {error.strerror}") from error
