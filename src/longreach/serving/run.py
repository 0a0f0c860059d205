"""Runs a service on a port until a signal ends it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from longreach.core.errors import InputError
from longreach.serving.app import make_app
from longreach.serving.service import Service

_LOOK = 0.05  # seconds after which it is looked whether requests have ended
_BACKLOG = 2048  # connections that wait to be taken
_LEAVE = 3  # seconds that connections have to close, once nothing is under way


class ServiceServer(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C; then new requests get 503, and what is under way has the service's grace to end. A second signal ends
    it at once.

    Args: host, port: to listen at; port 0 is any free one. ready: is called with the address, once requests can come.
    Raises: InputError where nothing can listen there.
    """

    def __init__(
        self, service: Service, *, host: str = "127.0.0.1", port: int = 0, ready: Callable[[str], None] = lambda url: None
    ) -> None:
        self._service, self._ready = service, ready
        self._socket = _listening(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._socket.getsockname()[1]}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None
        settings = uvicorn.Config(
            make_app(service), log_config=None, access_log=False, http="h11", timeout_graceful_shutdown=_LEAVE, lifespan="on"
        )
        super().__init__(settings)

    def serve_until_signal(self) -> None:
        """Serve, in this thread."""
        self.run(sockets=[self._socket])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._ready(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in good order, or at once where that was begun."""
        if self._closing is not None or self._loop is None:
            super().handle_exit(signal.SIGINT if self.should_exit else sig, frame)
            return
        self._loop.call_soon_threadsafe(self.close)

    def close(self) -> None:
        """End in good order; to be called in the server's event loop."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self) -> None:
        scheduler = self._service.scheduler
        scheduler.close()
        end = asyncio.get_running_loop().time() + self._service.limits.grace
        while scheduler.running and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_LOOK)
        await asyncio.to_thread(scheduler.stop)
        self.should_exit = True


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises: InputError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Without the protocol's number asyncio leaves Nagle's algorithm on, and every reply waits 40 ms for the client to confirm its head.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise InputError(f"cannot listen at {host}, port {port} ({error.strerror}); choose another --host or --port") from None
    return listening
