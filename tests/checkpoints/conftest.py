import shutil

import pytest

from tests.checkpoints.folders import write_folder
from tests.checkpoints.gguf_files import write_gguf


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("checkpoints") / "base")


@pytest.fixture
def folder(base_folder, tmp_path):
    """A checkpoint to break."""
    return shutil.copytree(base_folder, tmp_path / "base")


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The model of `base_folder` as a GGUF file."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")
