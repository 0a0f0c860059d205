"""Progress on stderr: a bar with the time left on a terminal, a line now and then elsewhere."""

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from longreach.core.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

_AT_ONCE = 2.0  # seconds after which work that shows nothing yet is named


class BarProgress(Progress):
    """Draws progress while its `with` block lasts. A bar leaves the screen when its work is done.

    Args: stream: where to draw (default: stderr). every: seconds between lines where the stream is no terminal. at_once: there, name work
    when it begins, not only where it is not done after a while. clock: seconds.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        every: float = 10.0,
        at_once: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every, self._at_once, self._clock = every, at_once, clock
        self._label, self._total, self._done = "", 0, 0
        self._began = self._told = clock()
        self._bars: Bars | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def start(self, label: str, total: int) -> None:
        """Begin a bar of `total` tokens (0: nobody knows how many), in place of the one before."""
        self._stop()
        self._label, self._total, self._done = label, total, 0
        self._began = self._told = self._clock()
        if self._stream.isatty():
            self._bars = _bars(self._stream)
            self._bars.add_task(label, total=total or None)
            self._bars.start()
        elif self._at_once:
            print(f"{label} ...", file=self._stream, flush=True)
        else:  # work that is done at once says nothing
            self._timer = threading.Timer(_AT_ONCE, print, args=(f"{label} ...",), kwargs={"file": self._stream, "flush": True})
            self._timer.daemon = True
            self._timer.start()

    def advance(self, tokens: int) -> None:
        """So many tokens more are done."""
        self._done += tokens
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0], tokens)
            if self._done >= self._total:
                self._stop()
        elif self._total and self._clock() - self._told >= self._every:
            self._told = self._clock()
            print(self._line(), file=self._stream, flush=True)

    def say(self, words: str) -> None:
        """A line that stays."""
        self._stop()
        print(words, file=self._stream, flush=True)

    def _line(self) -> str:
        share = min(1.0, self._done / self._total)
        left = round((self._clock() - self._began) * (1 - share) / share)
        return f"{self._label} ... {share:.0%}, {left // 60}:{left % 60:02} left"

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


def _bars(stream: TextIO) -> "Bars":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # What the command prints on stdout is its result: the bar must not redirect it.
    return Progress(*columns, console=Console(file=stream), transient=True, redirect_stdout=False, redirect_stderr=False)
