"""Errors of other libraries as one line."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from longreach.core.errors import CheckpointError, LongreachError


@contextmanager
def one_line(label: str) -> Iterator[None]:
    """What other libraries raise while they load, as one line."""
    try:
        yield
    except LongreachError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(f"{label} cannot be loaded: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The first line that an error says anything in, else its kind."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def disk_full(error: BaseException) -> bool:
    """Whether a write failed for lack of space; safetensors says so only in its text."""
    return (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or f"(os error {errno.ENOSPC})" in str(error)
