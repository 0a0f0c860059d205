"""Ends a text before the first of some stop texts, wherever tokens divide them."""

from collections.abc import Sequence


class StopText:
    """Takes a text in pieces and gives it on, but for what may be the beginning of a stop text.

    Args: stops: texts before which it ends. strips: whether white space before the text, and before what may be a stop, is left out.
    """

    def __init__(self, stops: Sequence[str], *, strips: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._strips, self._waiting = strips, ""
        self.found = False

    def push(self, piece: str) -> str:
        """What of the text is sure now; nothing comes once `found` is true."""
        if self.found:
            return ""
        self._waiting += piece
        if self._strips:
            self._waiting = self._waiting.lstrip()
            self._strips = not self._waiting
        found = min((at for stop in self._stops if (at := self._waiting.find(stop)) >= 0), default=None)
        if found is not None:
            self.found = True
            return self._taken(found)
        return self._taken(len(self._waiting) - self._held())

    def end(self) -> str:
        """The rest: no stop text came."""
        return "" if self.found else self._taken(len(self._waiting))

    def _held(self) -> int:
        """Characters at the end that a stop text may begin with."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(self._waiting)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(self._waiting[-size:]) for stop in self._stops)), 0)

    def _taken(self, count: int) -> str:
        text, self._waiting = self._waiting[:count], self._waiting[count:]
        return text
