"""Text to measure on: files read strictly, and windows of tokens spread evenly over them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from longreach.core.errors import InputError
from longreach.decoding.encoder import Encoder

Ids = npt.NDArray[np.int32]

_COUNTS = (8, 4, 2, 1)  # of windows, where the caller leaves it to the text


def read_texts(paths: Sequence[Path]) -> str:
    """The text of some UTF-8 files, in their order, two line ends apart.

    Raises: InputError for a file that is missing, empty or no UTF-8 text, with the place of the first wrong byte.
    """
    return "\n\n".join(_read(path) for path in paths)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise InputError(f"{path} is not UTF-8 text ({wrong}); convert it to UTF-8 or name another file") from None
    if (zero := data.find(b"\0")) >= 0:
        raise InputError(f"{path} is not text (byte 0x00 at offset {zero}); name a text file")
    if not text.strip():
        raise InputError(f"{path} holds no text")
    return text.removeprefix("\ufeff")


def cut_windows(encoder: Encoder, text: str, length: int, count: int | None = None, least: int = 1, most: int = 4) -> list[Ids]:
    """Windows of `length` ids: the first ids of equal parts of the text, so they never overlap and are spread evenly.

    Args: count: how many (default: the most of 8, 4, 2 or 1 that the text has room for). least, most: of those, the fewest and the most
    allowed.
    Raises: InputError where the text is too short, with its number of tokens.
    """
    counts = [count] if count is not None else [number for number in _COUNTS if least <= number <= most]
    for number in counts:
        if len(found := _cut(encoder, text, length, number)) == number:
            return found
    few = counts[-1]
    raise InputError(
        f"the text is too short: it has {len(encoder.encode(text))} tokens, and {few} {'window' if few == 1 else 'windows'} of {length} "
        f"tokens that do not overlap, one in each equal part of the text, do not fit; give more text, or measure to a smaller length"
    )


def _cut(encoder: Encoder, text: str, length: int, count: int) -> list[Ids]:
    """Those found before the first part that is too short."""
    starts = [_line_start(text, len(text) * i // count) for i in range(count)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        ids = encoder.first_tokens(text[start:end], length)
        if len(ids) < length:
            break
        found.append(np.array(ids, dtype=np.int32))
    return found


def _line_start(text: str, index: int) -> int:
    """Where the next line begins; 0 stays 0."""
    return text.find("\n", index - 1) + 1 or index if index else 0
