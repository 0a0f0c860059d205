"""The time that measuring takes: estimated, told, and kept to."""

import contextlib
import time
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.progress import Progress
from longreach.decoding.reading import new_cache, read

_TRIED = 4  # chunks that are read to tell how fast the model reads
_SLACK = 1.05  # of the budget: work under way may end


class OutOfTime(LongreachError):  # noqa: N818 - not an error: what was measured stands
    """The time budget is spent."""


class Clock(Progress):
    """Passes progress on, and ends the work where its time is spent. Args: seconds: None for no limit."""

    def __init__(self, seconds: float | None, progress: Progress) -> None:
        self.seconds, self.progress, self.begun = seconds, progress, time.monotonic()
        self.last = 0.0  # seconds that the last candidate took

    def expect(self, seconds: float) -> None:
        """Tell how long the rest may take."""
        words = f"about {in_words(seconds)}"
        if self.seconds is None:
            self.progress.say(f"Estimated time: {words}; --budget TIME limits it.")
        elif seconds > self.seconds - self.spent:
            self.progress.say(f"All of it would take {words}; what there is no time for is named.")

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def check(self, share: float) -> None:
        """Raise OutOfTime where one more candidate does not fit into that share of the budget."""
        if self.seconds is not None and self.spent + self.last > share * self.seconds:
            raise OutOfTime(f"the time budget of {in_words(self.seconds)} was spent")

    def start(self, label: str, total: int) -> None:
        """Work begins."""
        self.progress.start(label, total)

    def advance(self, tokens: int) -> None:
        """Raises: OutOfTime."""
        self.progress.advance(tokens)
        if self.seconds is not None and self.spent > _SLACK * self.seconds:
            raise OutOfTime(f"the time budget of {in_words(self.seconds)} was spent")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens meanwhile does not count."""
        paused = time.monotonic()
        yield
        self.begun += time.monotonic() - paused


class Labelled(Progress):
    """Says whose work it is."""

    def __init__(self, inner: Progress, label: str) -> None:
        self._inner, self._label = inner, label

    def start(self, label: str, total: int) -> None:
        """Work begins."""
        self._inner.start(f"{self._label}: {label}", total)

    def advance(self, tokens: int) -> None:
        """Passed on."""
        self._inner.advance(tokens)


def reading_seconds(model: PreTrainedModel, length: int, chunk_size: int) -> float:
    """About how long it takes to read a text of `length` tokens: some chunks are read, and each takes longer than the one before."""
    count = min(_TRIED * chunk_size, length)
    ids = torch.arange(count, device=model.device)[None] % model.config.get_text_config().vocab_size
    times: list[float] = []
    cache = new_cache(model)
    for start in range(0, count, chunk_size):
        began = time.perf_counter()
        for _ in read(model, ids[:, start : start + chunk_size], cache=cache, chunk_size=chunk_size):
            times.append(time.perf_counter() - began)
    if len(times) < 2:
        return times[0]
    growth = max(0.0, (times[-1] - min(times)) / (len(times) - 1))  # of a chunk, for each chunk before it
    chunks = length / chunk_size
    return chunks * min(times) + growth * chunks * (chunks - 1) / 2


def in_words(seconds: float) -> str:
    """`90 s`, `15 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
