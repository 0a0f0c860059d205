import pytest
from transformers.utils import logging


@pytest.fixture(autouse=True)
def _libraries_stay_as_they_are(monkeypatch):
    """Verbs quieten libraries for the whole process unless the user has chosen: tests are such users."""
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "warning")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@pytest.fixture(autouse=True)
def _exports_are_checked_fast(warm_reader):
    """By a process that is there already."""


@pytest.fixture
def no_bars():
    """As where the command itself is what imports transformers."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    yield
    if shown:
        logging.enable_progress_bar()
