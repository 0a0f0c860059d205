"""Brings the events of a job, or of a workflow that reads documents, from their thread to the coroutine of a request."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import suppress

from longreach.conversation.reply import Receipt
from longreach.core.progress import Progress
from longreach.serving.asks import ClientAsk
from longreach.serving.files import AttachedDocument
from longreach.serving.job import LATE, ChoiceEnded, Job, JobEvent, JobFailed, PieceWritten, PromptRead, ReadingMoved, ServerBusyError
from longreach.serving.local import ServedModel
from longreach.serving.replies import Account
from longreach.serving.service import Prepared, Service


class Ticket:
    """Events on their way to the coroutine that waits for them. To be made in its event loop. Args: choices: that have to end."""

    def __init__(self, service: Service, choices: int) -> None:
        self.service, self.choices = service, choices
        self.account = Account(prompt=0, profile="", window=None)
        self.seconds: float | None = None  # that may pass, where nobody else looks at the time
        self._began, self._loop = time.monotonic(), asyncio.get_running_loop()
        self._events: asyncio.Queue[JobEvent] = asyncio.Queue()

    def put(self, event: JobEvent) -> None:
        """Hand over an event, from any thread."""
        with suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def cancel(self) -> None:
        """Nobody waits any more."""

    async def events(self) -> AsyncGenerator[JobEvent, None]:
        """Everything up to the end of the last choice. Raises: whatever it failed with."""
        left, first = self.choices, True
        while left:
            event = await self._next()
            if isinstance(event, JobFailed):
                raise event.error
            if isinstance(event, PromptRead):
                self.account.reused = event.reused
            elif isinstance(event, PieceWritten) and first:
                first = False
                self.service.metrics.first(time.monotonic() - self._began)
            elif isinstance(event, ChoiceEnded):
                self.account.written += event.written
                left -= 1
            yield event

    async def _next(self) -> JobEvent:
        try:
            async with asyncio.timeout(None if self.seconds is None else self._began + self.seconds - time.monotonic()):
                return await self._events.get()
        except TimeoutError:
            raise ServerBusyError(LATE) from None


class JobTicket(Ticket):
    """Of a job. Args: account: of what it costs."""

    def __init__(self, service: Service, choices: int, account: Account) -> None:
        super().__init__(service, choices)
        self.account = account
        self._job: Job | None = None

    def submit(self, job: Job) -> None:
        """Have it done. Raises: as `Scheduler.submit`."""
        self._job = job
        self.service.scheduler.submit(job)

    def cancel(self) -> None:
        """Drop the job with its caches."""
        if self._job is not None:
            self._job.cancel()


class WorkflowTicket(Ticket):
    """Of a workflow that reads documents in a thread, and tells of it as a job does. Args: receipt: of messages that it does not see."""

    def __init__(self, service: Service, receipt: Receipt) -> None:
        super().__init__(service, 1)
        self._receipt = receipt
        self._gone = threading.Event()
        self._model = ServedModel(service, self._gone)
        self.seconds = service.limits.seconds

    def begin(self, threads: Executor, documents: Sequence[AttachedDocument], question: str, spec: str, most: int | None) -> None:
        """Read documents to answer a question, in so many tokens at most; None: not said."""
        threads.submit(self._read, documents, question, spec, most)

    def cancel(self) -> None:
        """Every request of the workflow ends where it is."""
        self._gone.set()

    def _read(self, documents: Sequence[AttachedDocument], question: str, spec: str, most: int | None) -> None:
        read = self.service.read_document
        try:
            assert read is not None  # noqa: S101 - without one nothing is begun
            answer, ledger = read(self._model, documents, question, spec, most, _Told(self))
        except Exception as error:  # noqa: BLE001 - it is told to the client, whatever it is
            self.put(JobFailed(error=error))
            return
        profile = self.service.profiles.all[0]  # whose window the model reads parts in
        self.account = Account(
            prompt=self._model.read, profile=profile.method, window=profile.window, receipt=self._receipt, ledger=ledger
        )  # fmt: skip
        self.put(PromptRead(reused=0))
        self.put(PieceWritten(choice=0, text=answer))
        self.put(ChoiceEnded(choice=0, reason="stop", written=self._model.written))


class _Told(Progress):
    """Progress of a workflow as events."""

    def __init__(self, ticket: Ticket) -> None:
        self._ticket, self._stage = ticket, "reading"
        self._done = self._total = 0
        self._lock = threading.Lock()

    def start(self, label: str, total: int) -> None:
        with self._lock:
            self._stage, self._done, self._total = label, 0, total
            self._tell()

    def advance(self, tokens: int) -> None:
        with self._lock:
            self._done += tokens
            self._tell()

    def _tell(self) -> None:
        self._ticket.put(ReadingMoved(stage=self._stage, done=self._done, total=self._total))


def ticket_of(service: Service, prepared: Prepared, ask: ClientAsk) -> JobTicket:
    """A prepared request that stands in the queue. Raises: as `Scheduler.submit`."""
    profile = prepared.profile
    account = Account(prompt=len(prepared.ids), profile=profile.method, window=profile.window, receipt=prepared.receipt)
    ticket = JobTicket(service, ask.choices, account)
    ticket.submit(service.job(prepared, ask, ticket.put))
    return ticket
