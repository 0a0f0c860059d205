"""Has a job done and waits for it, in a thread that may wait: what runs inside the server uses the same queue as its clients."""

import queue
import threading
from dataclasses import dataclass
from typing import Any

from longreach.core.errors import LongreachError
from longreach.serving.job import ChoiceEnded, Job, JobEvent, JobFailed, PieceWritten, TokenChoice
from longreach.serving.scheduler import Scheduler

_LOOK = 0.2  # seconds after which it is looked whether anybody still waits


class ClientGoneError(LongreachError):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """A whole answer. Args: reason: `stop` or `length`. written: tokens. chosen: they, where log-probabilities were asked for."""

    text: str
    reason: str
    written: int
    chosen: tuple[TokenChoice, ...]


def run_job(scheduler: Scheduler, *, gone: threading.Event | None = None, **job: Any) -> WrittenText:
    """The answer to a job with one choice. Args: gone: is set where nobody waits any more. job: of `Job`, but for its sink.

    Raises: ClientGoneError; whatever the job failed with.
    """
    events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()
    given = Job(sink=events.put, **job)
    scheduler.submit(given)
    pieces: list[PieceWritten] = []
    while True:
        if gone is not None and gone.is_set():
            given.cancel()
            raise ClientGoneError("the client is gone")
        try:
            event = events.get(timeout=None if gone is None else _LOOK)
        except queue.Empty:
            continue
        if isinstance(event, PieceWritten):
            pieces.append(event)
        elif isinstance(event, JobFailed):
            raise event.error
        elif isinstance(event, ChoiceEnded):
            chosen = tuple(each for piece in pieces for each in piece.chosen)
            text = "".join(piece.text for piece in pieces)
            return WrittenText(text=text, reason=event.reason, written=event.written, chosen=chosen)
