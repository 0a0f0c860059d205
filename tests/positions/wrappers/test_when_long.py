import pytest
import torch
from transformers import DynamicCache

from longreach.core.errors import UnsupportedError
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.whole_length import whole_length
from longreach.positions.base import positions_of
from longreach.testing.conformance.base import left_padding, written
from longreach.testing.models import random_ids, tiny_model
from tests.positions.ropes import ROPES

WINDOW, LENGTH = 32, 50
ROWS = (LENGTH, 30, 20)  # real tokens of a left-padded batch: one row passes the window, two do not
SPEC = "yarn:factor=4+when_long"


@pytest.fixture(params=["llama", "phi3", "qwen2_mixed", "gemma2"])
def model(request):
    """Full attention, partial rotary, sliding layers among full ones, and soft caps, which run without fused attention."""
    return tiny_model(request.param, max_position_embeddings=WINDOW)


@torch.no_grad()
def read(model, ids, mask, sizes):
    past, parts, end = DynamicCache(config=model.config.get_text_config()), [], 0
    for size in sizes:
        begin, end = end, end + size
        parts.append(model(ids[:, begin:end], attention_mask=mask[:, :end], **cache_argument(model, past), use_cache=True).logits)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("sizes", [(50,), (13, 9, 1, 17, 10), (25, *[1] * 25)], ids=["at once", "in chunks", "decoding"])
def test_short_rows_of_a_mixed_batch_are_the_models_own_bit_for_bit(model, sizes):
    ids, mask = random_ids(3, LENGTH), left_padding(ROWS)
    stock = read(model, ids, mask, sizes)
    with apply(model, SPEC):
        ours = read(model, ids, mask, sizes)
    for row in (1, 2):
        assert torch.equal(ours[row, -ROWS[row] :], stock[row, -ROWS[row] :])
    assert (ours[0] - stock[0]).abs().max() > 0.1, "the long row is scaled"


def test_a_batch_writes_on_as_its_short_rows_do_by_themselves(model):
    ids, mask = random_ids(3, LENGTH), left_padding((LENGTH, 20, 12))
    stock = written(model, ids, mask, tokens=8)
    with apply(model, SPEC):
        ours, alone = written(model, ids, mask, tokens=8), written(model, ids[:1], tokens=8)
    assert torch.equal(ours[1:], stock[1:])
    assert torch.equal(ours[:1], alone)


def test_heads_with_bases_of_their_own_switch_too():
    model, ids, mask = tiny_model(max_position_embeddings=WINDOW), random_ids(3, LENGTH), left_padding(ROWS)
    stock = read(model, ids, mask, (20, 20, 10))
    with apply(model, "harpe:base_min=20000,base_max=80000+when_long"):
        ours = read(model, ids, mask, (20, 20, 10))
    assert torch.equal(ours[1, -30:], stock[1, -30:])
    assert (ours[0, WINDOW:] - stock[0, WINDOW:]).abs().max() > 0.1
    torch.testing.assert_close(ours[0, :WINDOW], stock[0, :WINDOW], rtol=0, atol=1e-4)


def test_beyond_the_window_attention_is_the_scalings():
    # In a model of one layer nothing but attention can tell; deeper layers read hidden states of the first window as it was.
    model, ids = tiny_model(max_position_embeddings=WINDOW, num_hidden_layers=1), random_ids(2, LENGTH)
    with torch.no_grad():
        stock = model(ids, use_cache=False).logits
        with apply(model, "yarn:factor=4"):
            scaled = model(ids, use_cache=False).logits
        with apply(model, SPEC):
            ours = read(model, ids, torch.ones_like(ids), (20, 20, 10))
    torch.testing.assert_close(ours[:, :WINDOW], stock[:, :WINDOW], rtol=0, atol=1e-4)
    torch.testing.assert_close(ours[:, WINDOW:], scaled[:, WINDOW:], rtol=0, atol=1e-4)
    assert (scaled[:, WINDOW:] - stock[:, WINDOW:]).abs().max() > 0.1


def test_the_row_that_passes_the_window_while_writing_is_scaled_from_there_on():
    model, ids = tiny_model(max_position_embeddings=WINDOW, num_hidden_layers=1), random_ids(1, 40)
    with apply(model, "yarn:factor=4"):
        scaled = read(model, ids, torch.ones_like(ids), (40,))
    with apply(model, SPEC):
        ours = read(model, ids, torch.ones_like(ids), (28, *[1] * 12))
    torch.testing.assert_close(ours[:, WINDOW:], scaled[:, WINDOW:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("rope", ROPES, ids=str)
def test_frequencies_and_factor_change_at_the_window(rope):
    method, yarn = positions_of(parse(SPEC)), parse("yarn:factor=4")[0]
    plain = (rope.inv_freq(), 1.0)
    for length, wanted in ((1, plain), (rope.trained_window, plain), (rope.trained_window + 1, yarn.inv_freq(rope, 1))):
        found = method.inv_freq(rope, length)
        assert torch.equal(found[0], wanted[0])
        assert found[1] == wanted[1]


def test_what_follows_the_length_already_is_not_wrapped():
    says = "when_long cannot be used with dynamic_ntk: both change with the length; keep one of them"
    with pytest.raises(UnsupportedError, match=says), apply(tiny_model(), "dynamic_ntk+when_long"):
        pass


def test_a_text_that_is_known_to_be_long_begins_under_the_frequencies_for_long_ones():
    """On a checkpoint that has others for short texts; the window of 128 tokens is the one that it is scaled to."""
    model, ids = tiny_model("llama_longrope"), random_ids(1, 100)
    with torch.no_grad():
        stock = model(ids, use_cache=False).logits
        with apply(model, "yarn:factor=2+when_long"):
            with whole_length(model, 100):
                ours = read(model, ids, torch.ones_like(ids), (20, 10, 70))
            alone = read(model, ids, torch.ones_like(ids), (20, 10, 70))
    torch.testing.assert_close(ours, stock, rtol=0, atol=1e-4)
    assert (alone[:, :30] - stock[:, :30]).abs().max() > 0.1, "as transformers does, which cannot know what follows"
