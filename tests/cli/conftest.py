import pytest


@pytest.fixture(autouse=True)
def _libraries_stay_as_they_are(monkeypatch):
    """Verbs quieten libraries for the whole process unless the user has chosen: tests are such users."""
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "warning")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
