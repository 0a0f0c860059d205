"""Tests are offline, and take one core each: threads that wait for one another cost tiny models more than they gain."""

import gc
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import pytest

gc.disable()  # until everything is imported and collected
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported, also in the processes that tests start


def pytest_addoption(parser):
    parser.addoption("--method", help="only what concerns this method: the shared checks on it, and its own tests")
    parser.addoption("--thin", type=int, default=1, help="of the cases of each test the first and, drawn by name, one in so many")


def pytest_collection_modifyitems(config, items):
    name, thin = config.getoption("--method"), config.getoption("--thin")
    kept = [item for item in items if item.path.stem == f"test_{name}" or _is_about(name, item.name)] if name else list(items)
    kept = [item for number, item in _numbered(kept) if not number or not crc32(item.nodeid.encode()) % thin]
    if len(kept) < len(items):
        staying = set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item not in staying])
        items[:] = kept


def _numbered(items):
    """Each with its number among the cases of its test."""
    counts = Counter()
    for item in items:
        test = item.nodeid.partition("[")[0]
        yield counts[test], item
        counts[test] += 1


def pytest_collection_finish():
    gc.enable()
    gc.collect()
    gc.freeze()  # what was imported and collected stays: a collection in a test goes over what is new, in a fraction of the time


def _is_about(name, test):
    """Whether a parameter of the test is the method, or a spec that it begins or stands in."""
    _, _, parameters = test.partition("[")
    return any(part.partition(":")[0] == name for part in parameters.rstrip("]").replace("-", "+").split("+"))


@pytest.fixture(scope="session")
def plain_transformers(tmp_path_factory):
    """Runs what `subprocess` would run, where that needs plain transformers: imported once for all runs."""
    errors = tmp_path_factory.mktemp("plain") / "errors.txt"
    python = [sys.executable, "-P"]
    with ExitStack() as stack:

        @cache
        def server():
            program = [*python, str(Path(__file__).with_name("plain_transformers.py"))]
            process = stack.enter_context(subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            stack.callback(process.stdin.close)
            return process

        def run(command, **options):
            assert command[: len(python)] == python
            errors.write_text("")
            print(json.dumps([command[len(python) :], str(errors)]), file=server().stdin, flush=True)
            return subprocess.CompletedProcess(command, int(server().stdout.readline()), stderr=errors.read_text())

        yield SimpleNamespace(run=run)


@pytest.fixture
def warm_reader(monkeypatch, plain_transformers):
    """Exports are checked by plain transformers as ever, but in a process that has imported it already."""
    monkeypatch.setattr("longreach.checkpoints.export.subprocess", plain_transformers)
