import shutil

import pytest
from transformers.utils import logging

from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer


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


@pytest.fixture(scope="session")
def _to_tune(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    tiny_model(vocab_size=VOCABULARY, max_position_embeddings=64).save_pretrained(folder / "tiny")
    tokenizer().save_pretrained(folder / "tiny")
    (folder / "books").mkdir()
    (folder / "books" / "book.txt").write_text(real_text()[:40_000], encoding="utf-8")
    (folder / "held.txt").write_text(real_text()[100_000:110_000], encoding="utf-8")
    return folder


@pytest.fixture
def to_tune(_to_tune, tmp_path, monkeypatch):
    """The current folder, with the model `tiny` (trained window 64), books to train on, and held-out text."""
    shutil.copytree(_to_tune, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny_folder(tmp_path, monkeypatch):
    """A folder to work in, with the model `tiny` (trained window 128) and the text book.txt."""
    tiny_model(vocab_size=VOCABULARY).save_pretrained(tmp_path / "tiny")
    tokenizer().save_pretrained(tmp_path / "tiny")
    (tmp_path / "book.txt").write_text(real_text(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path
