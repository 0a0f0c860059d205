"""What an evaluation has time for: passages in rounds, one of each task and length, until the next one would take too long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GROWTH = 2.0  # the time of a text grows with its length to this power at the most: that of attention


class TimeLimit:
    """Knows what passages took, and which still fit. Args: seconds: from now on. now: seconds, as they pass."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._end = now, now() + seconds
        self._took: dict[tuple[str, int], float] = {}

    @contextmanager
    def timed(self, task: str, length: int) -> Iterator[None]:
        """What happens meanwhile is a passage; the slowest of its task and length counts."""
        began = self._now()
        yield
        self._took[task, length] = max(self._now() - began, self._took.get((task, length), 0.0))

    def fits(self, task: str, length: int) -> bool:
        """Whether there is time for one more."""
        return self._now() + self.expected(task, length) <= self._end

    def expected(self, task: str, length: int) -> float:
        """Seconds of a passage: what one took, or the slowest of another task at this length, or of a shorter one, which grows with the
        square of its length; 0 where nothing is known."""
        if (known := self._took.get((task, length))) is not None:
            return known
        at = [took for (_, other), took in self._took.items() if other == length]
        shorter = [took * (length / other) ** _GROWTH for (_, other), took in self._took.items() if other < length]
        return max(at) if at else min(shorter, default=0.0)
