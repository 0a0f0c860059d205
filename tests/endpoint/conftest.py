import threading

import pytest


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No key, no proxy, and no thread that a test leaves behind."""
    for name in ("LONGREACH_API_KEY", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    before = set(threading.enumerate())
    yield
    assert not set(threading.enumerate()) - before
