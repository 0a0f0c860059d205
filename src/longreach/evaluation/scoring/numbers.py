"""Answers that are numbers."""

import math
import re

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")


def numbers_in(text: str) -> list[float]:
    """All numbers that a text writes in digits, as `1,250.5` and `-3e4`; a sign right behind a word or number belongs to neither.

    >>> numbers_in("from 1,250.5 to -3e4, 7-8")
    [1250.5, -30000.0, 7.0, 8.0]
    """
    found = []
    for match in _NUMBER.finditer(text):
        said = match[0].replace(",", "")
        joined = said[0] in "+-" and match.start() > 0 and (text[match.start() - 1].isalnum() or text[match.start() - 1] in ").")
        found.append(float(said[1:] if joined else said))
    return found


def near(written: str, right: float, *, relative: float = 0.0, absolute: float = 0.0) -> float:
    """1 where the last number that is written lies near the right one.

    Args: relative: share of the right number that it may be away. absolute: that it may be away in any case; the larger one counts.
    """
    found = numbers_in(written)
    return float(bool(found) and math.isfinite(found[-1]) and abs(found[-1] - right) <= max(relative * abs(right), absolute))
