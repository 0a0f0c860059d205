"""Items that passages are made of: drawn one after another, so that a longer list begins as a shorter one, and with facts among them."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")


class Drawn(Generic[T]):
    """Items that are drawn when they are first needed, once each. Args: draw: the next one."""

    def __init__(self, draw: Callable[[], T]) -> None:
        self._draw, self._items = draw, list[T]()

    def first(self, count: int) -> list[T]:
        """So many from the first on."""
        while len(self._items) < count:
            self._items.append(self._draw())
        return self._items[:count]


def woven(items: Sequence[T], pieces: Sequence[tuple[float, T]]) -> list[T]:
    """The items with each piece among them at its depth (0 to 1); pieces of one depth keep their order."""
    whole, last = list[T](), 0
    for depth, piece in sorted(pieces, key=lambda one: one[0]):
        at = round(depth * len(items))
        whole += [*items[last:at], piece]
        last = at
    return [*whole, *items[last:]]


def spread(count: int, rng: np.random.Generator) -> list[float]:
    """So many depths, each at a random place in a part of its own of the whole, in random order."""
    return [float((part + rng.random()) / count) for part in rng.permutation(count)]


def uuids(rng: np.random.Generator, count: int) -> list[str]:
    """So many random UUIDs; the first ones are the same for any count."""
    digits = rng.bytes(16 * count).hex()
    each = (digits[start : start + 32] for start in range(0, len(digits), 32))
    return [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one in each]


def numerals(rng: np.random.Generator, count: int, digits: int) -> list[str]:
    """So many different numbers of so many digits, none of which begins with 0. `count` is far below the number that there are."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[str(rng.integers(10 ** (digits - 1), 10**digits))] = None
    return list(found)
