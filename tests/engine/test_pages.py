"""Blocks that grow at their end and are shared by the states of a cache."""

import errno
import os

import pytest
import torch
from transformers import DynamicCache

import longreach
from longreach.core.errors import LongreachError
from longreach.engine._channels import Change
from longreach.engine._pages import Pages
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import tiny_model

INFLLM = "infllm:block_size=4,num_blocks=2,local_window=8,num_representatives=2"


def blocks(*numbers):
    return {"k": torch.tensor(numbers, dtype=torch.float32)[:, None, None].expand(-1, 2, 3).clone()}


@pytest.mark.parametrize("storage", ["device", "host", "disk"])
def test_two_that_go_on_from_one_do_not_see_each_other(storage):
    one = Pages.empty(storage).appended(blocks(0, 1, 2))
    left = one.appended(blocks(3))
    right = one.appended(blocks(30)).appended(blocks(*range(40, 90)))
    left = left.appended(blocks(4))
    assert one["k"][:, 0, 0].tolist() == [0, 1, 2]
    assert left["k"][:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert right["k"][:, 0, 0].tolist() == [0, 1, 2, 30, *range(40, 90)]
    assert (len(one), len(left), len(right)) == (3, 5, 54)


def test_the_last_of_them_grows_in_place():
    one = Pages.empty("device").appended(blocks(*range(20)))
    more = one.appended(blocks(20))
    assert more["k"].data_ptr() == one["k"].data_ptr()


def test_blocks_that_were_taken_back_make_room_again():
    one = Pages.empty("device").appended(blocks(0, 1, 2))
    kept, gone = one.appended(blocks(3)), one.appended(blocks(4))  # of another buffer, for `kept` is in use
    assert gone["k"].data_ptr() != one["k"].data_ptr()
    del kept
    again = one.appended(blocks(5))
    assert again["k"].data_ptr() == one["k"].data_ptr()
    assert again["k"][:, 0, 0].tolist() == [0, 1, 2, 5]


@torch.no_grad()
def test_a_snapshot_keeps_blocks_that_are_taken_back_later():
    model, ids = tiny_model(), torch.randint(3, 90, (1, 60), generator=torch.Generator().manual_seed(0))
    with longreach.apply(model, INFLLM, warn=False):
        cache = DynamicCache(config=model.config)
        model(ids[:, :50], **cache_argument(model, cache))
        taken = longreach.snapshot(cache)
        wanted = model(ids[:, 50:], **cache_argument(model, cache)).logits
        longreach.restore(cache, taken)
        cache.crop(-20)
        model(ids[:, :30], **cache_argument(model, cache))  # other blocks than those of the snapshot
        longreach.restore(cache, taken)
        assert torch.equal(model(ids[:, 50:], **cache_argument(model, cache)).logits, wanted)


def test_what_is_on_disk_survives_growing():
    pages = Pages.empty("disk")
    for number in range(100):
        pages = pages.appended(blocks(number))
    assert pages["k"][:, 1, 2].tolist() == list(range(100))


def test_changed_rows():
    pages = Pages.empty("device").appended({"k": torch.arange(12.0).view(2, 3, 2)})  # two blocks of three rows
    assert pages.changed(Change(pick=torch.tensor([2, 0])))["k"].tolist() == [[[4, 5], [0, 1]], [[10, 11], [6, 7]]]


def test_a_full_disk_is_told_in_one_line(monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LongreachError, match=r"cannot write [\d,]+ bytes of a cache to .* \(No space left on device\); set TMPDIR"):
        Pages.empty("disk").appended(blocks(1))


@torch.no_grad()
def test_a_method_reads_the_same_wherever_blocks_lie():
    model, ids = tiny_model(), torch.randint(3, 90, (2, 70), generator=torch.Generator().manual_seed(0))
    found = []
    for storage in ("device", "host", "disk"):
        with longreach.apply(model, f"{INFLLM},storage={storage}", warn=False):
            cache = DynamicCache(config=model.config)
            parts = [model(part, **cache_argument(model, cache)).logits for part in ids.split(7, 1)]
            found.append(torch.cat(parts, 1))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
