"""Shorter texts that stand for a long one, and the settings that belong to them."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from longreach.core.errors import SpecError
from longreach.core.method import Method
from longreach.decoding.reading import CHUNK

SHORT, LONGEST = 1024, 8192  # tokens of the shorter text: by default, and at most
_BLOCK = 16  # settings from here on are taken for blocks, which larger settings are multiples of


def lengths_for(stack: Sequence[Method], context: int, short: int | None) -> tuple[int, int]:
    """Tokens of the two texts to read in place of one of `context`; the same number where that is read itself.

    The shorter one is long enough for settings that shrink with it to be two blocks, or for them not to have to shrink.
    """
    wanted = short = short or SHORT
    for name, value in _settings(stack):
        if value > short // 2:
            wanted = max(wanted, min(2 * value, 2 * _block(stack, value) * context // value))
    size, rest = (
        max(short, min(LONGEST, -(-wanted // (2 * CHUNK)) * 2 * CHUNK)),
        context % CHUNK,
    )  # their last chunk is as long as the target's
    return (context, context) if 2 * size + rest >= context else (size + rest, 2 * size + rest)


def shrunk(stack: Sequence[Method], part: float, length: int) -> tuple[Method, ...]:
    """The methods with settings of many tokens reduced to this part, in whole blocks; those of few tokens are what they are."""
    if part == 1:
        return tuple(stack)
    found = []
    for method in stack:
        changes: dict[str, Any] = {}
        for name, value in _settings([method]):
            if value > length // 2:
                block = _block([method], value)
                changes[name] = type(getattr(method, name))(max(block, round(value * part / block) * block))
        try:
            found.append(replace(method, **changes))
        except SpecError:  # settings that hang together: as they are, they are right for shorter texts than the target, too
            found.append(method)
    return tuple(found)


def _settings(stack: Sequence[Method]) -> list[tuple[str, int]]:
    """Name and value of what is a whole number above 1."""
    named = [(each.name, getattr(method, each.name)) for method in stack for each in fields(method)]
    return [(name, int(value)) for name, value in named if isinstance(value, int | float) and value > 1 and value == int(value)]


def _block(stack: Sequence[Method], value: int) -> int:
    """The largest other setting that divides a setting, from 16 on and to 512; 1 where there is none."""
    others = [other for _, other in _settings(stack) if _BLOCK <= other <= CHUNK and other < value and value % other == 0]
    return max(others, default=1)
