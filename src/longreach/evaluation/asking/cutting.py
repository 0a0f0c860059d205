"""A text that is too long, cut at word borders where the user says."""

import re
from collections.abc import Callable
from typing import Literal, get_args

Side = Literal["left", "middle", "right"]
SIDES: tuple[Side, ...] = get_args(Side)

_BORDER = re.compile(r"\s+|(?<=[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef])")  # Chinese and Japanese put no spaces between words
_CLOSE = 0.99  # of the room is filled
_TRIES = 12


def cut(text: str, side: Side, fits: Callable[[str], tuple[int, int]]) -> str:
    """As much of the text as fits, without what stands at one side of it, or in its middle; "" where nothing does.

    Args: fits: the units of a text, and those that there is room for.
    """
    best, low, high = "", 0, len(text)
    kept = high
    for _ in range(_TRIES):
        tried = kept_of(text, kept, side)
        used, room = fits(tried)
        if used <= room:
            best, low = tried, kept
            if used >= _CLOSE * room:
                break
        else:
            high = kept
        if high - low <= 1:
            break
        guess = int(kept * room / used * (1 + _CLOSE) / 2) if used and room > 0 else 0
        kept = guess if low < guess < high else (low + high) // 2
    return best


def kept_of(text: str, characters: int, side: Side) -> str:
    """At most so many characters of the text, in whole words; two parts of it are two lines.

    >>> kept_of("one two three four", 9, "right"), kept_of("one two three four", 9, "left")
    ('one two', 'four')
    """
    if characters >= len(text):
        return text
    head = characters if side == "right" else 0 if side == "left" else (characters - 1) // 2
    tail = characters - head if side == "left" else 0 if side == "right" else characters - head - 1
    return "\n".join(part for part in (_head(text, head), _tail(text, tail)) if part)


def _head(text: str, size: int) -> str:
    ends = [match.start() for match in _BORDER.finditer(text, max(0, size - 1000), size + 1) if match.start() <= size]
    return text[: ends[-1]] if ends else ""


def _tail(text: str, size: int) -> str:
    start = len(text) - size
    begins = (match.end() for match in _BORDER.finditer(text, max(0, start - 1), start + 1000) if match.end() >= start)
    return text[next(begins, len(text)) :] if size > 0 else ""
