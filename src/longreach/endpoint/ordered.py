"""Many calls at a time, with their results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from longreach.endpoint.errors import EndpointError, UnusableEndpointError

Q = TypeVar("Q")
A = TypeVar("A")

_AHEAD = 4  # requests a worker that are taken before their turn, so that a slow one does not hold up the others


def in_order(ask: Callable[[Q], A], requests: Iterable[Q], workers: int) -> Iterator[A | EndpointError]:
    """`ask(request)` for each request, `workers` at a time; an `EndpointError` takes the place of its answer.

    Raises: UnusableEndpointError and what is no EndpointError, as soon as their turn comes; then nothing more is asked. Threads are
    daemons: what is under way when nobody waits for it any more keeps no program from ending.
    """
    todo: SimpleQueue[tuple[Q, Future[A]] | None] = SimpleQueue()
    pending: deque[Future[A]] = deque()
    threads: list[Thread] = []
    try:
        for request in requests:
            if len(threads) < workers:
                threads.append(Thread(target=_work, args=(ask, todo), name="longreach-endpoint", daemon=True))
                threads[-1].start()
            pending.append(Future())
            todo.put((request, pending[-1]))
            while pending and (pending[0].done() or len(pending) >= _AHEAD * workers):
                answer = _result(pending.popleft())
                yield answer
        while pending:
            answer = _result(pending.popleft())
            yield answer
    finally:
        for future in pending:
            future.cancel()
        for _ in threads:
            todo.put(None)
    for thread in threads:
        thread.join()


def _work(ask: Callable[[Q], A], todo: "SimpleQueue[tuple[Q, Future[A]] | None]") -> None:
    while (task := todo.get()) is not None:
        request, future = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(ask(request))
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                future.set_exception(error)


def _result(future: "Future[A]") -> A | EndpointError:
    try:
        return future.result()
    except UnusableEndpointError:
        raise
    except EndpointError as error:
        return error
