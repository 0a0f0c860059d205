"""When to ask: so many requests a minute, pauses that a server asks for, and longer and longer waits after failures."""

import email.utils
import random
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

LONGEST_BACKOFF = 60.0  # seconds


class Pacer:
    """Lets requests pass at a pace that all threads share.

    Args: per_minute: requests; None for as many as come. sleep, now: seconds, as in `time`.
    """

    def __init__(self, per_minute: float | None, sleep: Callable[[float], None], now: Callable[[], float]) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._sleep, self._now = sleep, now
        self._lock = threading.Lock()
        self._next = now()

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            now = self._now()
            turn = max(self._next, now)
            self._next = turn + self._gap
        if turn > now:
            self._sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Let nobody pass for so long."""
        with self._lock:
            self._next = max(self._next, self._now() + seconds)


def backoff(failures: int, chance: random.Random) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4, ... up to a minute, less up to half of it, so that clients part."""
    return min(LONGEST_BACKOFF, 2.0 ** (failures - 1)) * (0.5 + chance.random() / 2)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait by `Retry-After`, a number or a date (RFC 9110, 10.2.3); None where it does not.

    A date counts from the server's own `Date`, so that clocks need not agree.

    >>> retry_after({"retry-after": "7"}), retry_after({"retry-after": "0.5"}), retry_after({"retry-after": "soon"})
    (7.0, 0.5, None)
    """
    said = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", said):
        return float(said)
    if (until := _date(said)) is None:
        return None
    since = _date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (until - since).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
