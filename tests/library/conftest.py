"""A model, its tokenizer and an empty library."""

import pytest

from longreach.library import Library
from tests.checkpoints.folders import byte_tokenizer, tiny


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def shelves(tmp_path):
    return Library(tmp_path / "library")
