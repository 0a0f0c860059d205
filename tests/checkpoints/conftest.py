import shutil

import pytest

from tests.checkpoints.folders import write_folder


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("checkpoints") / "base")


@pytest.fixture
def folder(base_folder, tmp_path):
    """A checkpoint to break."""
    return shutil.copytree(base_folder, tmp_path / "base")
