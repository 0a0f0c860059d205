"""Tests are offline, and parallel workers take one core each."""

import gc
import os

os.environ["HF_HUB_OFFLINE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by torch when it is first imported, also in the processes that tests start


def pytest_addoption(parser):
    parser.addoption("--method", help="only what concerns this method: the shared checks on it, and its own tests")


def pytest_collection_modifyitems(config, items):
    name = config.getoption("--method")
    if name:
        kept = [item for item in items if item.path.stem == f"test_{name}" or _is_about(name, item.name)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def pytest_collection_finish():
    gc.collect()
    gc.freeze()  # what was imported and collected stays: a collection in a test goes over what is new, in a fraction of the time


def _is_about(name, test):
    """Whether a parameter of the test is the method, or a spec that it begins or stands in."""
    _, _, parameters = test.partition("[")
    return any(part.partition(":")[0] == name for part in parameters.rstrip("]").replace("-", "+").split("+"))
