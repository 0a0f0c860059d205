"""Real text to fill passages with, cut between words to a number of units, and what is put into it."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from longreach.core.errors import InputError
from longreach.evaluation.asking.units import Units

_PROBE = 4_000  # characters by which the first guess is made
_SHARE = 0.97  # of what is left is taken at once, so that nothing has to be counted twice
_FINE = 24  # units, the last of which are taken word by word
_BLOCK = 100_000  # characters
_SEAM = 2  # units that parts may count less apart than together
_WORD = re.compile(r"\S+(?=\s)")
_SPACE = re.compile(r"\s")
_BREAK = re.compile(r"(?<=[.!?])\s|\n")


class Filler:
    """Args: text: real text. units: what is counted."""

    def __init__(self, text: str, units: Units) -> None:
        self.text, self.units = text, units

    def cut(self, count: int, start: int = 0, *, sure: bool = True) -> str:
        """The text from the line that begins at or after character `start`: `count` units at most, and less by a few words at most.

        Args: sure: count the whole once more at the end; parts may count less apart than together.
        Raises: InputError where the text ends before.
        """
        if count <= 0:
            return ""
        start = end = self.text.find("\n", start - 1) + 1 if start else 0
        left, each = count - _SEAM, self._each(start)
        while left > _FINE:
            part = self._words(end, int(left * each * _SHARE))
            counted = self._counted(part)
            if not counted:
                raise InputError(
                    f"the text is too short: from character {start} on it has fewer than {count} {self.units.name}; give more text "
                    "(--text), or choose shorter lengths"
                )
            each = len(part) / counted
            if counted <= left:
                end, left = end + len(part), left - counted
            else:
                each *= _SHARE
        cut = self.text[start : self._last(end, left, each)]
        while sure and (over := self.units.count(cut) - count) > 0:
            for _ in range(over):
                cut = cut[: len(cut.rstrip()) - len(cut.rstrip().rsplit(maxsplit=1)[-1])] if cut.split(maxsplit=1)[1:] else ""
        return cut

    def start(self, number: int, count: int) -> int:
        """The character from which on the passage of that number takes its text: spread over the text, and again from the beginning."""
        size = int(count * self._each(0)) + 1
        places = len(self.text) // size
        return (number % places) * size if places > 1 else 0

    def _each(self, start: int) -> float:
        probe = self.text[start : start + _PROBE]
        return len(probe) / max(1, self.units.count(probe)) if probe else 1.0

    def _counted(self, part: str) -> int:
        """Units of a part: of a long one about, its blocks by themselves and on all cores."""
        if len(part) <= 2 * _BLOCK:
            return self.units.count(part) if part else 0
        ends = [found.end() for at in range(_BLOCK, len(part) - _BLOCK, _BLOCK) if (found := _SPACE.search(part, at))]
        return sum(self.units.counts([part[begin:end] for begin, end in pairwise([0, *ends, len(part)])]))

    def _words(self, start: int, size: int) -> str:
        """So many characters, without a word that they would tear; "" where the text ends before."""
        if start + size > len(self.text):
            return ""
        part = self.text[start : start + max(1, size)]
        torn = not part[-1].isspace() and not self.text[start + len(part) : start + len(part) + 1].isspace()
        return part[: len(part) - len(part.rsplit(maxsplit=1)[-1])] or part if torn and part.split() else part

    def _last(self, start: int, left: int, each: float) -> int:
        """Where the last word ends that `left` units have room for."""
        ends = [start, *(found.end() for found in _WORD.finditer(self.text, start, start + int(4 * each * max(1, left)) + 1))]
        low, high = 0, len(ends) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.units.count(self.text[start : ends[middle]]) <= left else (low, middle - 1)
        return ends[low]


def placed(text: str, pieces: Sequence[tuple[float, str]]) -> str:
    """The text with each piece put in at its depth (0 to 1), where a line or a sentence ends; pieces of one depth keep their order."""
    breaks = [0, *(found.end() for found in _BREAK.finditer(text)), len(text)]
    parts, last = [], 0
    for depth, piece in sorted(pieces, key=lambda one: one[0]):
        at = _nearest(breaks, depth * len(text))
        parts += [text[last:at], piece]
        last = at
    return "".join([*parts, text[last:]])


def divided(text: str, shares: Sequence[float]) -> list[str]:
    """The text in parts of about these shares of it, which end where a line or sentence does, or a word where none ends near."""
    breaks = [found.end() for found in _BREAK.finditer(text)]
    spaces = [found.end() for found in _SPACE.finditer(text)]
    parts, last, reached = [], 0, 0.0
    for share in shares[:-1]:
        reached += share
        wanted, slack = reached / sum(shares) * len(text), share / sum(shares) * len(text) / 4
        ends = [end for places in (breaks, spaces) if places and abs((end := _nearest(places, wanted)) - wanted) <= slack]
        end = ends[0] if ends else round(wanted)
        parts.append(text[last:end])
        last = end
    return [*parts, text[last:]]


def _nearest(ascending: Sequence[int], wanted: float) -> int:
    right = bisect_right(ascending, wanted)
    return min(ascending[max(0, right - 1) : right + 1], key=lambda place: abs(place - wanted))
