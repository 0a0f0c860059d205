"""The time that measuring takes: estimated, told, and kept to."""

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from transformers import Cache, PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.decoding.reading import new_cache, read
from longreach.engine import window

_TRIED = 4  # chunks that are read to tell how fast the model reads
_QUESTION = 32  # tokens, about
_SLACK = 1.05  # of the budget: work under way may end


class OutOfTime(LongreachError):  # noqa: N818 - not an error: what was measured stands
    """The time budget is spent."""


class Clock(Progress):
    """Passes progress on, and ends the work where its time is spent. Args: seconds: None for no limit. now: seconds, as they pass."""

    def __init__(self, seconds: float | None, progress: Progress, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.progress, self.now, self.begun = seconds, progress, now, now()
        self.last = 0.0  # seconds that the last candidate took
        self._marked = 0.0  # seconds that were spent when shares began to count

    def expect(self, least: float, most: float, *, known: bool, trains: bool = False) -> None:
        """Tell how many seconds it may take. Args: known: some of it was measured before. trains: the model is trained after it."""
        words = f"about {in_words(least)} to {in_words(most)}" if in_words(least) != in_words(most) else f"about {in_words(most)}"
        words = f"at most about {in_words(most)}" if known else words
        more = "--budget TIME limits it"
        if self.seconds is not None:
            more = f"the budget is {in_words(self.seconds)}, and what there is no time for is named at the end"
        self.progress.say(f"Estimated time{' before the training' if trains else ''}: {words}; {more}.")

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.begun

    def mark(self) -> None:
        """Shares are of what is left from now on."""
        self._marked = self.spent

    def check(self, share: float) -> None:
        """Raise OutOfTime where one more candidate does not fit into that share of the budget."""
        if self.seconds is not None and self.spent + self.last > self._marked + share * (self.seconds - self._marked):
            raise OutOfTime(f"the time budget of {in_words(self.seconds)} was spent")

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """What happens meanwhile is a candidate's."""
        began = self.now()
        yield
        self.last = self.now() - began

    def start(self, label: str, total: int) -> None:
        """Work begins."""
        self.progress.start(label, total)

    def advance(self, tokens: int) -> None:
        """Raises: OutOfTime."""
        self.progress.advance(tokens)
        if self.seconds is not None and self.spent > _SLACK * self.seconds:
            raise OutOfTime(f"the time budget of {in_words(self.seconds)} was spent")

    def say(self, words: str) -> None:
        """Passed on."""
        self.progress.say(words)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens meanwhile does not count."""
        paused = self.now()
        yield
        self.begun += self.now() - paused


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

    def say(self, words: str) -> None:
        """Passed on."""
        self._inner.say(words)


class Pace:
    """How fast a model reads: some chunks are read to tell, as many as `length` tokens and its table of positions have room for.

    Args: length: tokens of the texts to come. chunk_size: tokens a forward.
    """

    def __init__(self, model: PreTrainedModel, length: int, chunk_size: int, progress: Progress = SILENT) -> None:
        self.chunk_size = chunk_size
        count = min(_TRIED * chunk_size, length, window.position_limit(model) or length)
        ids = torch.arange(count, device=model.device)[None] % model.config.get_text_config().vocab_size
        progress.start("estimating the time", count)
        self.times: list[float] = []  # seconds of each whole chunk, or of all there is
        _seconds(model, ids[:, :_QUESTION], new_cache(model))  # the first forward of a process is slow
        cache = new_cache(model)
        for start in range(0, max(count - chunk_size, 0) + 1, chunk_size):
            self.times.append(_seconds(model, ids[:, start : start + chunk_size], cache))
            progress.advance(min(chunk_size, count))
        self.chunk_size = min(chunk_size, count)
        self.asking = _seconds(model, ids[:, :_QUESTION], new_cache(model))  # seconds of a short forward

    def reading(self, length: int) -> float:
        """About how many seconds a text of `length` tokens takes; each chunk takes longer than the one before."""
        growth = max(0.0, (self.times[-1] - min(self.times)) / max(1, len(self.times) - 1))  # of a chunk, for each one before it
        chunks = length / self.chunk_size
        return chunks * min(self.times) + growth * chunks * max(0.0, chunks - 1) / 2


def _seconds(model: PreTrainedModel, ids: torch.Tensor, cache: Cache) -> float:
    began = time.perf_counter()
    for _, logits in read(model, ids, cache=cache, chunk_size=ids.shape[1]):
        logits.flatten()[0].item()  # a device may still be at work
    return time.perf_counter() - began


def in_words(seconds: float) -> str:
    """`1 s` at least, `90 s`, `15 min`, `2.5 h`."""
    if seconds < 120:
        return f"{max(1.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
