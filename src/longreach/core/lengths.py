"""Lengths in tokens as people write them: `4096`, `32k` (32 * 1024), `1M` (1024 * 1024), `1e6` (1000000)."""

import re

from longreach.core.errors import SpecError

_UNITS = {"": 1, "k": 1024, "m": 1024 * 1024}


def parse_length(text: str | int) -> int:
    """Tokens meant by `4096`, `32k`, `1.5k`, `1M` or `1e6`.

    Raises: SpecError for anything else, for a fraction of a token, and for less than 1.
    """
    match = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,15}))?([kKmM]|[eE]\+?[0-9]{1,2})?", str(text).strip())
    if match is None:
        raise SpecError(f"not a length: {text!r}; write tokens as 4096, 32k or 1M")
    whole, fraction, unit = match[1], match[2] or "", (match[3] or "").lower()
    parts: int = 10 ** len(fraction)
    each: int = 10 ** int(unit[1:]) if unit.startswith("e") else _UNITS[unit]
    tokens, rest = divmod(int(whole + fraction) * each, parts)
    if tokens < 1 or rest:
        raise SpecError(f"not a length: {text!r}; a length is a whole number of tokens, at least 1")
    return tokens


def format_length(tokens: int) -> str:
    """The shortest exact way to write a length: 32768 -> `32k`, 1000 -> `1000`."""
    if tokens and tokens % _UNITS["m"] == 0:
        return f"{tokens // _UNITS['m']}M"
    if tokens and tokens % _UNITS["k"] == 0:
        return f"{tokens // _UNITS['k']}k"
    return str(tokens)


def factor_to(target: int, window: int) -> float:
    """target / window with six decimals, rounded up: short enough to be read, and it still reaches the target.

    >>> factor_to(4076, 492)
    8.284553
    """
    return -(-target * 10**6 // window) / 10**6
