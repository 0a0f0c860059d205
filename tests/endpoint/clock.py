import random
import threading

from longreach.endpoint.client import Endpoint


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.time = 0.0
        self.slept = []
        self._lock = threading.Lock()

    def now(self):
        return self.time

    def sleep(self, seconds):
        with self._lock:
            self.time += seconds
            self.slept.append(seconds)


class AlwaysHalf(random.Random):
    """Waits are three quarters of their longest."""

    def random(self):
        return 0.5


def endpoint_at(server, clock=None, **settings):
    clock = clock or Clock()
    settings = {"timeout": 20, "chance": AlwaysHalf(), "sleep": clock.sleep, "now": clock.now, **settings}
    return Endpoint(server if isinstance(server, str) else server.url, **settings)


HELLO = ({"role": "user", "content": "Hello there"},)
