import errno
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from longreach.checkpoints.checkpoint import load, save
from longreach.core.errors import CheckpointError
from tests.checkpoints.folders import logits, tiny


def version(folder):
    """Which of two saves a folder holds; fails where it is not whole."""
    model = load(folder).model
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "generation_config.json", "longreach.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    return model.config.max_position_embeddings


def left_over(folder):
    return [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


@pytest.fixture
def first(folder, tmp_path):
    """A checkpoint that is to be replaced: it says 256, the next one will say 512."""
    return save(*load(folder), tmp_path / "out", target=256)


@pytest.mark.parametrize("step", [1, 2])
def test_a_rename_that_fails_leaves_the_old_one(folder, first, monkeypatch, step):
    model, tokenizer = load(folder)
    real, calls = os.rename, []

    def rename(source, destination):
        calls.append(source)
        if len(calls) == step:
            raise OSError(errno.EIO, "the disk is gone")
        return real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointError, match=r"cannot save to .*the disk is gone; nothing was changed there"):
        save(model, tokenizer, first, target=512)
    assert version(first) == 256
    assert left_over(first) == []
    monkeypatch.undo()
    save(model, tokenizer, first, target=512)
    assert version(first) == 512


def test_when_even_undoing_fails_nothing_is_lost(folder, first, monkeypatch):
    model, tokenizer = load(folder)
    real, calls = os.rename, []

    def rename(source, destination):
        calls.append(source)
        if len(calls) > 1:
            raise OSError(errno.EIO, "the disk is gone")
        return real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointError):
        save(model, tokenizer, first, target=512)
    monkeypatch.undo()
    assert not first.exists()
    assert version(first) == 512, "both were kept, and the new one, which is complete, is taken"


KILLED = """
import os, sys
from pathlib import Path
from longreach.checkpoints import _folder

folder, step = Path(sys.argv[1]), int(sys.argv[2])
done = 0

def counted(function):
    def call(*args, **kwargs):
        global done
        if done == step:
            os._exit(9)
        done += 1
        return function(*args, **kwargs)
    return call

os.rename, os.fsync, _folder.shutil.rmtree = counted(os.rename), counted(os.fsync), counted(_folder.shutil.rmtree)
with _folder.replacing(folder) as new:
    for file in sorted(Path(sys.argv[3]).iterdir()):
        counted((new / file.name).write_bytes)(file.read_bytes())
"""


def test_a_kill_at_any_moment_leaves_one_whole_checkpoint(folder, first, tmp_path):
    following = save(*load(folder), tmp_path / "following", target=512)
    seen, step = [], 0
    while True:
        killed = subprocess.run([sys.executable, "-c", KILLED, str(first), str(step), str(following)], check=False).returncode
        seen.append(version(first))
        assert killed in (0, 9)
        if not killed:
            break
        if seen[-1] == 512:  # what the kill left behind does not disturb the next save
            save(*load(folder), first, target=256)
            assert version(first) == 256
            assert left_over(first) == []
        step += 1
    assert seen == sorted(seen)
    assert {256, 512} == set(seen)
    assert len(seen) > 15, "every file, flush and rename is a moment"
    assert left_over(first) == []


def test_a_deleted_checkpoint_does_not_come_back(first):
    shutil.copytree(first, first.with_name(f".{first.name}.longreach-old"))
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match=r"no such folder"):
        load(first)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_one_line_and_changes_nothing(folder, first, monkeypatch, error):
    model, tokenizer = load(folder)

    def full(self, folder, **options):
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    says = r"cannot save to .*: the disk is full \(it takes \d.\d MB\); nothing was changed there"
    with pytest.raises(CheckpointError, match=says) as caught:
        save(model, tokenizer, first, target=512)
    assert "\n" not in str(caught.value)
    assert version(first) == 256
    assert left_over(first) == []
    with pytest.raises(CheckpointError, match=r"the disk is full"):
        save(model, tokenizer, first.with_name("another"), target=512)
    assert not first.with_name("another").exists()


def test_space_is_looked_at_before_writing(folder, first, monkeypatch):
    model, tokenizer = load(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 100, 0))
    monkeypatch.setattr(PreTrainedModel, "save_pretrained", None)
    with pytest.raises(CheckpointError, match=r"the disk is full"):
        save(model, tokenizer, first, target=512)
    assert version(first) == 256


def test_a_folder_that_cannot_be_made_is_one_line(folder):
    with pytest.raises(CheckpointError, match=r"cannot save to .*File exists|cannot save to .*Not a directory"):
        save(*load(folder), folder / "config.json" / "out")


def test_a_checkpoint_can_be_saved_over_the_one_it_was_loaded_from(first):
    model, tokenizer = load(first, dtype="auto")
    save(model, tokenizer, first, target=512)
    assert version(first) == 512
    assert torch.equal(logits(load(first).model), logits(tiny()))


def test_links_stay_links(folder, first, tmp_path):
    (tmp_path / "link").symlink_to(first)
    save(*load(folder), tmp_path / "link", target=512)
    assert (tmp_path / "link").is_symlink()
    assert version(first) == 512
