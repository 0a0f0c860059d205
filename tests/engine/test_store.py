"""What the engine keeps: buffers that grow and forget, sinks of padded rows, and the changes that generation makes to a cache."""

import random

import pytest
import torch

from longreach.core.bands import FULL, TRUE, Band, Clamped, Constant, Grouped, Selection, Within
from longreach.core.errors import LongreachError
from longreach.engine._channels import Change, Channels
from longreach.engine._store import BandLayer, LayerPlan
from longreach.engine._stream import Stream

ROWS = 3


def numbered(first, count, rows=ROWS):
    """Tokens [B, 1, count, 2] that know their row and their slot."""
    slots = torch.arange(first, first + count).float()
    row = torch.arange(rows).float()[:, None].expand(rows, count)
    return torch.stack([row, slots.expand(rows, count)], -1)[:, None]


def slots_in(tensor, row=0):
    return tensor[row, 0, :, 1].tolist()


# --- what a layer keeps

MANY = (Band(hi=3), Band(lo=4, hi=9, keys=Constant(0)), Band(sinks=2), Band(sinks=5, keys=Constant(0), lo=3))


@pytest.mark.parametrize(
    ("bands", "sinks", "window", "maps", "sink_maps"),
    [
        (FULL, 0, None, (TRUE,), ()),
        ((Band(hi=15), Band(lo=16, queries=Grouped(4), keys=Grouped(4))), 0, None, (TRUE, Grouped(4)), ()),
        ((Band(hi=15, after=4), Band(sinks=4, queries=Clamped(19))), 4, 16, (TRUE,), (TRUE,)),
        (MANY, 5, 10, (TRUE, Constant(0)), (TRUE, Constant(0))),
        ((Band(sinks=3),), 3, 0, (), (TRUE,)),
        ((Band(chunk=8, hi=0, keys=Within(8)), Band(chunk=8, lo=1, hi=2, keys=Within(8))), 0, 24, (Within(8),), ()),
    ],
)  # fmt: skip
def test_the_plan_is_the_least_that_bands_need(bands, sinks, window, maps, sink_maps):
    assert LayerPlan.of(bands) == LayerPlan(num_sinks=sinks, window=window, maps=maps, sink_maps=sink_maps, only_bands=True)
    assert LayerPlan.of(bands, keep_all=True).window is None


# --- buffers


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_channels_hold_what_a_list_would_hold(seed, grad):
    choose = random.Random(seed)
    channels, kept, next_slot = Channels(), [], 0
    with torch.set_grad_enabled(grad):
        for _ in range(400):
            action = choose.choice(["append", "append", "keep_last", "take back", "replace"])
            if action == "append" or not kept:
                count = choose.choice([1, 1, 1, choose.randint(1, 90)])
                new = numbered(next_slot, count).requires_grad_(grad)
                channels.append({"k": new, "v": new * 2})
                kept += range(next_slot, next_slot + count)
                next_slot += count
            elif action == "keep_last":
                count = choose.choice([0, choose.randint(0, 100)])
                channels.keep_last(count)
                kept = kept[max(0, len(kept) - count) :]
            elif action == "take back":
                count = choose.randint(0, min(5, len(kept)))
                channels.end -= count
                kept, next_slot = kept[: len(kept) - count], next_slot - count
            else:
                channels.replace("k", channels.view("k") * 1)
            assert len(channels) == len(kept)
            assert slots_in(channels.view("k"), choose.randrange(ROWS)) == kept
            assert slots_in(channels.view("v")) == [2 * slot for slot in kept]


def test_a_bounded_buffer_stops_growing():
    channels, sizes = Channels(), set()
    for slot in range(5000):
        channels.append({"k": numbered(slot, 1)})
        channels.keep_last(100)
        sizes.add(channels.data["k"].shape[2])
    assert slots_in(channels.view("k")) == list(range(4900, 5000))
    assert max(sizes) <= 300


def test_a_growing_buffer_is_copied_seldom():
    channels, copies, before = Channels(), 0, None
    for slot in range(5000):
        channels.append({"k": numbered(slot, 1)})
        copies += channels.data["k"] is not before
        before = channels.data["k"]
    assert copies <= 13  # 64 * 1.5 ** 12 > 5000
    assert channels.data["k"].shape[2] <= 1.5 * 5000


def test_gradients_reach_what_was_appended_before_a_replacement():
    first, second = numbered(0, 3).requires_grad_(), numbered(3, 2).requires_grad_()
    channels = Channels()
    channels.append({"k": first})
    loss = (channels.view("k") ** 2).sum()
    channels.replace("k", channels.view("k") * 3)
    channels.append({"k": second})
    (loss + channels.view("k").sum()).backward()
    assert torch.equal(first.grad, 2 * first.detach() + 3)
    assert torch.equal(second.grad, torch.ones_like(second))


# --- layers


def layer_of(*bands, starts=(0,) * ROWS):
    """A layer whose rows have so much left padding, all of it seen already."""
    stream = Stream(start=list(starts), started=[True] * len(starts))
    return BandLayer(LayerPlan.of(bands), stream, leads=True)


def write(layer, count, rows=ROWS):
    """Write the next tokens as the engine does."""
    new = numbered(layer.tokens, count, rows)
    layer.update(new, new)
    layer.forget()
    layer.write({"v": new, **dict.fromkeys(layer.plan.maps, new)}, {"v": new, **dict.fromkeys(layer.plan.sink_maps, new)})


STREAMING = (Band(hi=7, after=3), Band(sinks=3))


@pytest.mark.parametrize("sizes", [(30,), (1,) * 30, (2, 9, 1, 18), (11, 19)])
def test_sinks_are_the_first_real_tokens_of_each_row(sizes):
    layer = layer_of(*STREAMING, starts=(0, 2, 11))
    for size in sizes:
        write(layer, size)
    assert [slots_in(layer.first["v"], row) for row in range(ROWS)] == [[0, 1, 2], [2, 3, 4], [11, 12, 13]]
    assert layer.first_filled
    layer.forget()
    assert slots_in(layer.recent.view("v")) == list(range(23, 30))
    assert layer.oldest == 23
    assert layer.get_seq_length() == 30
    assert layer.get_mask_sizes(5) == (35, 0)
    assert layer.get_max_length() == -1


def test_the_tokens_of_the_last_pass_can_be_taken_back_also_from_a_window():
    layer = layer_of(*STREAMING)
    write(layer, 20)
    write(layer, 4)
    layer.crop(-4)
    assert layer.get_seq_length() == 20
    write(layer, 1)
    assert slots_in(layer.recent.view("v")) == list(range(13, 21))


def test_what_left_the_window_cannot_be_taken_back():
    layer = layer_of(*STREAMING)
    write(layer, 20)
    write(layer, 4)
    with pytest.raises(LongreachError, match="forgets cannot take back 5 tokens"):
        layer.crop(-5)
    assert layer.get_seq_length() == 24


def test_sinks_that_were_taken_back_are_written_again():
    layer = layer_of(*STREAMING)
    write(layer, 4)
    layer.crop(-3)
    new = numbered(100, 9)
    layer.update(new, new)
    layer.write({"v": new, TRUE: new}, {"v": new, TRUE: new})
    assert slots_in(layer.first["v"]) == [0, 100, 101]
    assert slots_in(layer.recent.view(TRUE)) == [0, *range(100, 109)]


def test_any_number_can_be_taken_back_where_nothing_is_forgotten():
    layer = layer_of(*FULL)
    write(layer, 50)
    layer.crop(0)
    assert layer.get_seq_length() == 50
    layer.crop(-49)
    assert slots_in(layer.recent.view("v")) == [0]
    layer.crop(-100)
    assert layer.get_seq_length() == len(layer.recent) == 0


def test_crop_takes_minus_the_number_of_tokens():
    # A positive number once meant the length to keep: transformers refuses it, too.
    layer = layer_of(*FULL)
    write(layer, 50)
    with pytest.raises(LongreachError, match=r"crop\(10\): give minus the number"):
        layer.crop(10)


@pytest.mark.parametrize(
    ("change", "rows"),
    [
        (lambda layer: layer.reorder_cache(torch.tensor([2, 2, 0])), [2, 2, 0]),
        (lambda layer: layer.batch_select_indices(torch.tensor([1])), [1]),
        (lambda layer: layer.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
    ],
    ids=["reorder", "select", "repeat"],
)
def test_rows_of_the_batch_move_with_all_that_belongs_to_them(change, rows):
    starts = (0, 2, 5)
    layer = layer_of(*STREAMING, starts=starts)
    layer.stream.offset = torch.tensor([[10], [12], [15]])
    layer.stream.valid = torch.eye(3, 20).bool()
    layer.stream.step = "of the batch as it was"
    write(layer, 20)
    change(layer)
    for place, row in enumerate(rows):
        assert layer.recent.view("v")[place, 0, 0, 0] == layer.first["v"][place, 0, 0, 0] == row
        assert layer.stream.valid[place].int().argmax() == row
    assert layer.stream.start == [starts[row] for row in rows]
    assert layer.stream.offset[:, 0].tolist() == [10 + starts[row] for row in rows]
    assert layer.stream.step is None


def test_one_row_stands_for_all_rows():
    change = Change(repeat=2)
    stream = Stream(start=[0], started=[True], offset=torch.tensor([[0]]))
    stream.apply(change)
    assert stream.start == [0, 0]
    assert stream.offset.shape == (1, 1)


def test_reset_empties_everything():
    layer = layer_of(*STREAMING, starts=(0, 2, 5))
    write(layer, 20)
    layer.reset()
    assert layer.get_seq_length() == len(layer.recent) == 0
    assert not layer.first
    assert vars(layer.stream) == vars(Stream())
    layer.stream.closed = True
    layer.reset()
    assert layer.stream.closed, "an empty layer of a method that is gone cannot be used either"


def test_a_half_written_or_closed_layer_is_refused():
    layer, new = layer_of(*FULL), numbered(0, 2)
    layer.update(new, new)
    with pytest.raises(LongreachError, match="interrupted forward pass; start with a new cache"):
        layer.update(new, new)
    closed = layer_of(*FULL)
    closed.stream.closed = True
    with pytest.raises(LongreachError, match="no longer applied; start with a new cache"):
        closed.update(new, new)


# --- chunks to choose from

CHOICE = Selection(chooser=None, chunk=4, keys=Within(4), lo=2)


def test_a_selection_keeps_everything_and_the_queries_of_unfinished_chunks():
    plan = LayerPlan.of((Band(chunk=4, hi=1, keys=Within(4)), CHOICE))
    assert plan == LayerPlan(num_sinks=0, window=None, maps=(Within(4),), sink_maps=(), chunk=4)
    layer = BandLayer(plan, Stream(start=[0] * ROWS, started=[True] * ROWS), leads=True)
    for first in range(0, 42, 7):
        new = numbered(first, 7)
        layer.update(new, new)
        layer.forget()
        layer.write({"v": new, Within(4): new}, {})
        layer.queries.append({"q": new})
    assert slots_in(layer.recent.view("v")) == list(range(42))
    assert slots_in(layer.queries.view("q")) == list(range(35 - 8, 42))
    layer.crop(-7)
    assert slots_in(layer.queries.view("q")) == list(range(35 - 8, 35))
    with pytest.raises(LongreachError, match="cannot take back 6 tokens"):
        layer.crop(-6)


def test_a_row_of_a_layer_is_a_view():
    layer = layer_of(*FULL, starts=(0, 2, 5))
    write(layer, 10)
    layer.summaries = torch.arange(3.0)[:, None, None, None]
    row = layer.row(1)
    assert row.recent.view("v").data_ptr() == layer.recent.view("v")[1:2].data_ptr()
    assert slots_in(row.recent.view(TRUE)) == list(range(10))
    assert row.recent.view(TRUE)[0, 0, 0, 0] == row.summaries.item() == 1
