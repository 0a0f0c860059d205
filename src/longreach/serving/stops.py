"""Ends a text before the first of some stop texts, wherever tokens divide them."""

from collections.abc import Sequence


class StopText:
    """Takes a text in pieces and gives it on, but for what may be the beginning of a stop text.

    Args: stops: texts before which it ends. strips: whether white space before the text is left out.

    Attributes: found: whether a stop text came. rest: what has not been given on; once one came, that and what follows it.
    """

    def __init__(self, stops: Sequence[str], *, strips: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._strips, self.rest = strips, ""
        self.found = False

    def push(self, piece: str) -> str:
        """What of the text is sure now; nothing comes once `found` is true."""
        if self.found:
            return ""
        self.rest += piece
        if self._strips:
            self.rest = self.rest.lstrip()
            self._strips = not self.rest
        found = min((at for stop in self._stops if (at := self.rest.find(stop)) >= 0), default=None)
        if found is not None:
            self.found = True
            return self._taken(found)
        return self._taken(len(self.rest) - self._held())

    def end(self) -> str:
        """The rest: no stop text came."""
        return "" if self.found else self._taken(len(self.rest))

    def _held(self) -> int:
        """Characters at the end that a stop text may begin with."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        sizes = range(min(longest, len(self.rest)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(self.rest[-size:]) for stop in self._stops)), 0)

    def _taken(self, count: int) -> str:
        text, self.rest = self.rest[:count], self.rest[count:]
        return text
