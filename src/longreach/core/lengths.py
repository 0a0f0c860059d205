"""Lengths in tokens as people write them: `4096`, `32k` (32 * 1024), `1M` (1024 * 1024)."""

import re

from longreach.core.errors import SpecError

_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_length(text: str | int) -> int:
    """Tokens meant by `4096`, `32k`, `1.5k` or `1M`.

    Raises: SpecError for anything else, for a fraction of a token, and for less than 1.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", str(text).strip())
    if match is None:
        raise SpecError(f"not a length: {text!r}; write tokens as 4096, 32k or 1M")
    tokens = float(match[1]) * _UNITS[match[2].lower()]
    if tokens < 1 or tokens != int(tokens):
        raise SpecError(f"not a length: {text!r} is {tokens:g} tokens; a length is a whole number of at least 1")
    return int(tokens)


def format_length(tokens: int) -> str:
    """The shortest exact way to write a length: 32768 -> `32k`, 1000 -> `1000`."""
    if tokens and tokens % _UNITS["m"] == 0:
        return f"{tokens // _UNITS['m']}M"
    if tokens and tokens % _UNITS["k"] == 0:
        return f"{tokens // _UNITS['k']}k"
    return str(tokens)
