"""What is of no use, or too much, goes; nothing else does."""

import os
import time

import pytest

from longreach.library import Library, shelf
from tests.library.documents import (
    TEXT,
    cut_short,
    edited,
    files,
    flipped_bit,
    manifest_of,
    no_json,
    other_tokens,
    without_file,
    without_tokens,
)


def aged(volume, seconds):
    before = time.time() - seconds
    os.utime(manifest_of(volume), (before, before))


@pytest.fixture
def three(shelves, model, tokenizer):
    """Used an hour ago, two and three; of about one size."""
    for hours, name in enumerate(("new", "old", "oldest"), 1):
        aged(shelves.add(model, tokenizer, f"{TEXT} {name}", name=name).volume, hours * 3600)
    return shelves


def gone(removed):
    return sorted((one.name, one.why) for one in removed)


def test_nothing_is_cleared_where_nothing_is_wrong(three):
    assert three.gc() == []
    assert len(three.entries()) == 3


def test_what_was_not_used_for_long_goes(three, model, tokenizer):
    three.open("oldest", model=model, tokenizer=tokenizer)  # which is a use
    wanted = three.gc(older_than=5400, dry_run=True)
    assert gone(wanted) == [("old", "not used for that long")]
    assert len(three.entries()) == 3
    assert three.gc(older_than=5400) == wanted
    assert [volume.name for volume in three.entries()] == ["new", "oldest"]


def test_what_is_too_much_goes_oldest_use_first(three):
    sizes = {volume.name: volume.bytes for volume in three.entries()}
    removed = three.gc(max_bytes=sizes["new"] + 1)
    assert gone(removed) == [("old", "over the limit"), ("oldest", "over the limit")]
    assert sum(one.bytes for one in removed) == sizes["old"] + sizes["oldest"]
    assert len(files(three.folder)) == 3


@pytest.mark.parametrize(
    "damage", [flipped_bit, cut_short, without_file, no_json, without_tokens, other_tokens], ids=lambda value: value.__name__
)
def test_what_is_broken_goes(three, damage):
    volume = shelf.find(three.folder, "old")
    damage(volume)
    ((_, why),) = gone(three.gc())
    assert why
    assert [each.name for each in three.entries()] == ["new", "oldest"]
    assert len(files(three.folder)) == 6


@pytest.mark.parametrize("change", [edited(format=2), edited(longreach="0.0.1")], ids=lambda value: value.__name__)
def test_what_another_release_wrote_stays(three, change):
    change(shelf.find(three.folder, "old"))
    assert three.gc() == []


def test_what_is_half_written_goes_once_nobody_is_at_it(three):
    folder = three.folder
    (folder / ".adding-killed").mkdir()
    (folder / ".adding-killed" / ".tmpAbC123").write_bytes(bytes(100))
    (folder / "0123456789abcdef.safetensors").write_bytes(bytes(50))
    (folder / "notes.txt").write_text("somebody else's")
    assert three.gc() == []
    before = time.time() - 3600
    for path in (folder / ".adding-killed" / ".tmpAbC123", folder / ".adding-killed", folder / "0123456789abcdef.safetensors"):
        os.utime(path, (before, before))
    removed = three.gc()
    assert gone(removed) == [(".adding-killed", "half written"), ("0123456789abcdef.safetensors", "half written")]
    assert sum(one.bytes for one in removed) == 150
    assert len(files(folder)) == 10, "three documents, and what is somebody else's"


def test_a_library_that_is_not_there_is_empty(tmp_path):
    assert Library(tmp_path / "none").entries() == []
    assert Library(tmp_path / "none").gc() == []
    assert not (tmp_path / "none").exists()


def test_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LONGREACH_LIBRARY", str(tmp_path))
    assert Library().folder == tmp_path
    monkeypatch.delenv("LONGREACH_LIBRARY")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Library().folder == tmp_path / ".cache" / "longreach" / "library"
