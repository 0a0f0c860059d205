"""Jobs that are scheduled by hand, step by step, and servers on a free port."""

import threading
from contextlib import contextmanager

from longreach.serving.job import ChoiceEnded, Job, JobFailed, PieceWritten, PromptRead
from longreach.serving.profiles import Profiles
from longreach.serving.run import ServiceServer
from longreach.serving.scheduler import Scheduler
from longreach.serving.service import make_service
from longreach.serving.shelved import ServedLibrary


class Told:
    """What a job told."""

    def __init__(self):
        self.events = []

    def __call__(self, event):
        self.events.append(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    def text(self, choice=0):
        return "".join(event.text for event in self.of(PieceWritten) if event.choice == choice)

    @property
    def reasons(self):
        return [event.reason for event in self.of(ChoiceEnded)]

    @property
    def error(self):
        (failed,) = self.of(JobFailed)
        return failed.error

    @property
    def reused(self):
        (read,) = self.of(PromptRead)
        return read.reused


def job(profile, ids, *, most=6, **more):
    """A job, and what it will have told."""
    told = Told()
    return Job(ids=tuple(ids), profile=profile, most=most, sink=told, **more), told


def scheduler(loaded, *, profiles=None, **more):
    """One whose steps a test takes itself."""
    profiles = Profiles(*loaded).all if profiles is None else profiles
    return Scheduler(profiles, loaded.tokenizer, **{"chunk_size": 16, "now": lambda: 0.0, **more})  # time stands still


def run(scheduled, most=500):
    """Steps until nothing is left to do; how many."""
    for step in range(most):
        if not (scheduled.running or scheduled.waiting):
            return step
        scheduled.step()
    raise AssertionError(f"{scheduled.running} jobs have not ended after {most} steps")


@contextmanager
def server(loaded, specs=(), *, name="tiny", target=None, library=None, **more):
    """A service at an address: (url, service, what serves it). Args: library: a folder."""
    profiles = Profiles(*loaded, specs, target=target)
    if library is not None:
        more["library"] = ServedLibrary(library, profiles, loaded.tokenizer)
    service = make_service(name, profiles, loaded.tokenizer, **{"chunk_size": 64, "reuse_bytes": 1 << 24, **more})
    ready = threading.Event()
    serving = ServiceServer(service, ready=lambda url: ready.set())
    thread = threading.Thread(target=serving.serve_until_signal)
    thread.start()
    try:
        assert ready.wait(20)
        yield serving.url, service, serving
    finally:
        serving._loop.call_soon_threadsafe(serving.close)
        thread.join(20)
        profiles.close()
        assert not thread.is_alive()
