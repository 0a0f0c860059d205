"""What a text task builds a passage with: a length to fill, a way to count, real text, and random numbers."""

import math
import zlib
from collections.abc import Callable, Sequence
from functools import cache
from typing import NoReturn

import numpy as np

from longreach.core.errors import InputError
from longreach.evaluation.asking.cutting import Side, cut
from longreach.evaluation.asking.filler import Filler, placed
from longreach.evaluation.asking.passage import Ask, Turn
from longreach.evaluation.asking.units import Units
from longreach.evaluation.tasks.base import NoRoom

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)  # at which facts stand in turn

_CLOSE = 0.995  # of the room is filled, where items allow it
_PROBED = 0.03  # of it is filled first, to know how long items are
_SEAMS = 4000  # units of text in which one more may arise where it is cut, so that a long one is not counted again for a few
_TRIES = 12


class Space:
    """The length of a prompt and its answer together, in `units`, for one passage.

    Args: task: the spec of the task that fills it. length: of everything: passage, questions, template, and the longest answer. number: of
    the passage; with `seed` it decides all that is random. text: real text; None: the task gets none, and must not ask for any. truncate:
    the side at which texts of a length of their own are cut where they are too long; None: none is.
    """

    def __init__(
        self, *, task: str, length: int, units: Units, seed: int = 0, number: int = 0, text: Filler | None = None,
        truncate: Side | None = None,
    ) -> None:  # fmt: skip
        self.task, self.length, self.units, self.seed, self.number = task, length, units, seed, number
        self.truncate = truncate
        self._filler = text

    def rng(self, *key: int | str) -> np.random.Generator:
        """Random numbers that hang on seed, passage, the task's name and key alone: the same at every length, for every tokenizer, and for
        every setting, so that what one setting changes can be compared on the same facts."""
        words = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (self.task.partition(":")[0], *key)]
        return np.random.default_rng((self.seed, self.number, *words))

    def count(self, text: str) -> int:
        """Units of a text inside a passage."""
        return self.units.count(text)

    def around(self, asks: Sequence[Ask], turns: Sequence[Turn] = ()) -> int:
        """Units of everything beside the passage, with the longest question and its answer."""
        return max(self.units.around(ask, turns) for ask in asks)

    def left(self, asks: Sequence[Ask], turns: Sequence[Turn] = ()) -> int:
        """Units that the passage may have; less than 1 where the length does not even hold the question."""
        return self.length - self.around(asks, turns)

    def drawn(self, count: int) -> int:
        """Which of `count` texts the passage is about: each one is the turn of one passage, in an order that the seed decides."""
        return int(np.random.default_rng((self.seed, zlib.crc32(self.task.encode()))).permutation(count)[self.number])

    def fitted(self, text: str, asks: Sequence[Ask], shape: Callable[[str], str]) -> tuple[str, int]:
        """What `shape` makes of a text of its own length, and how many units of it had to be cut, as `truncate` says.

        Raises: NoRoom where it is too long, and nothing is to be cut, or nothing would be left.
        """
        room, whole = self.left(asks), shape(text)
        if (used := self.count(whole)) <= room:
            return whole, 0
        if self.truncate is None:
            self.too_short(self.length - room + used, "cut what is too long (--truncate)")
        kept = cut(text, self.truncate, lambda part: (self.count(shape(part)), room))
        if not kept:
            self.too_short(self.length - room + self.count(shape("")) + math.ceil(0.01 * used) + 1)
        return (shorter := shape(kept)), used - self.count(shorter)

    def filled(self, pieces: Sequence[tuple[float, str]], asks: Sequence[Ask], *, before: str = "", least: float = 0.5) -> str:
        """Real text with each piece at its depth (0 to 1), as long as there is room for; `before` stands first.

        Args: least: share of the passage that is to be real text, below 1.
        Raises: NoRoom where there is less. InputError where the text is too short.
        """
        return self.shaped(lambda text: before + placed(text, pieces), asks, least=least)

    def shaped(self, shape: Callable[[str], str], asks: Sequence[Ask], *, least: float = 0.5) -> str:
        """What `shape` makes of real text (of none, too), with as much of it as there is room for.

        Args: least: share of the passage that is to be real text, below 1.
        Raises: NoRoom where there is less. InputError where the text is too short.
        """
        room = self.left(asks)
        fixed = self.count(bare) if (bare := shape("")) else 0
        if fixed > (1 - least) * room or room < 1:
            self.too_short(self.length - room + math.ceil(fixed / (1 - least)) + 1)
        start = self.filler.start(self.number, self.length)
        take = room - fixed - room // _SEAMS
        for _ in range(_TRIES):
            text = shape(self.filler.cut(take, start, sure=False))
            if (over := self.count(text) - room) <= 0:
                return text
            take -= over
        raise InputError(f"{self.task}: no passage of {self.length} {self.units.name} could be made with this tokenizer")

    def listed(self, make: Callable[[int], str], asks: Sequence[Ask], *, least: int, turns: Sequence[Turn] = ()) -> int:
        """How many items have room in `make(items)`: the most, or as many as leave less than 0.5 % empty. It is counted a few times only.

        Raises: NoRoom where `least` items have none.
        """
        around = self.around(asks, turns)
        return self._most(lambda items: around + self.count(make(items)), least=least)

    def topped(self, make: Callable[[int, int], str], asks: Sequence[Ask], *, least: int, most: int) -> tuple[int, int]:
        """As `listed` for `make(items, 0)`, and the most of one more item with which `make(items, rest)` has room where a gap is left.

        For items so long that the last one would leave a gap. Args: most: of `rest`, in steps of the task's own; more of it is longer.
        Raises: NoRoom where `least` items have no room.
        """
        around = self.around(asks)
        return self._topped(lambda items, rest: around + self.count(make(items, rest)), least=least, most=most)

    def talked(
        self, make: Callable[[int, int], Sequence[Turn]], text: str, asks: Sequence[Ask], *, least: int, most: int
    ) -> tuple[int, int]:
        """As `topped`, for a conversation before a `text`. Raises: NoRoom where `least` items have no room."""
        fixed = self.count(text)
        return self._topped(lambda items, rest: fixed + self.around(asks, make(items, rest)), least=least, most=most)

    def _topped(self, size: Callable[[int, int], int], *, least: int, most: int) -> tuple[int, int]:
        size = cache(size)
        items = self._most(lambda items: size(items, 0), least=least)
        if size(items, 0) >= _CLOSE * self.length:  # a long passage is not counted again for so little
            return items, 0
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if size(items, middle) <= self.length else (low, middle - 1)
        return items, low

    def _most(self, size: Callable[[int], int], *, least: int) -> int:
        """As many items as `_CLOSE` of the length takes, everything included, or the most that have room."""
        size = cache(size)
        if (needed := size(least)) > self.length:
            self.too_short(needed)
        probed = max(8, least)  # a few items more may not be longer, where they are rounded
        low, taken = least, needed  # what has room, and its units
        each = max(1e-9, (size(least + probed) - needed) / probed)  # units of an item
        high: int | None = None  # what has none
        aims = [_PROBED, (1 + _CLOSE) / 2]  # an item's units are known better when more are counted, which is cheap for few
        for _ in range(_TRIES):
            aim = aims.pop(0) if len(aims) > 1 else aims[0]
            guess = low + max(1, int((aim * self.length - taken) / each))
            if high is not None:
                guess = min(guess, high - 1)
            if guess <= low:
                break
            if (counted := size(guess)) <= self.length:
                each = (counted - taken) / (guess - low) if counted > taken else each
                low, taken = guess, counted
            else:
                high, each = guess, max(each, (counted - taken) / (guess - low))
            if taken >= _CLOSE * self.length or high == low + 1:
                break
        return low

    @property
    def filler(self) -> Filler:
        """The real text. Raises: InputError where none was given."""
        if self._filler is None:
            raise InputError(f"{self.task} fills its passages with real text; give some (--text FILE)")
        return self._filler

    def too_short(self, least: int, remedy: str = "") -> NoReturn:
        """Say that the length does not hold the task, which would, and what else can be done."""
        raise NoRoom(
            f"{self.task} needs a length of {least} {self.units.name} at least here, and {self.length} are asked for; "
            f"choose a greater length{remedy and f', or {remedy}'}",
            least,
        )
