"""What `plan_memory` makes of what caches take, and what it refuses."""

import json

import pytest
from transformers import LlamaConfig

import longreach
from longreach.core.errors import CheckpointError, InputError, SpecError, UnsupportedError
from longreach.core.spec import unparse
from longreach.diagnosis.memory import SHARE
from longreach.planning import plan as planning
from longreach.planning.choosing import to_compare
from longreach.planning.growth import room_in_channels, room_in_pages
from longreach.planning.machine import Machine
from longreach.planning.shrinking import lengths_for

GIB = 2**30


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Nothing is timed: a machine of 1 TFLOP/s that reads 100 GB/s."""
    monkeypatch.setattr(planning, "machine", lambda device, dtype: Machine(flops=1e12, reads=1e11))


def llama(folder, layers):
    """The shape of Llama 70B, with no weights: 80 layers, 8 key-value heads of 128 dimensions."""
    LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=layers, num_attention_heads=64, num_key_value_heads=8,
        vocab_size=128256, max_position_embeddings=8192, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return llama(tmp_path_factory.mktemp("planned") / "llama-70b", 80)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """For methods that treat layers differently, of which each is weighed."""
    return llama(tmp_path_factory.mktemp("planned") / "llama-6-layers", 6)


def row_of(found, spec):
    return next(row for row in found.methods if row.spec == spec)


def test_a_model_of_70b_without_weights(large):
    found = longreach.plan_memory(
        large, context=131072, batch=2, memory=320 * GIB, methods=["", "sinks:window_size=8188", "quantised:bits=2"]
    )
    assert (found.weights_here, found.dtype, found.window) == (False, "bfloat16", 8192)
    assert found.weights == 70_553_706_496 * 2
    stock = row_of(found, "")
    assert stock.reading == 2 * 131072 * 80 * 2 * 8 * 128 * 2  # texts, tokens, layers, keys and values, heads, dimensions, bytes
    assert stock.peak == found.weights + stock.answered + stock.reading // 80  # one layer is copied as it grows behind the prompt
    assert (stock.fits, stock.reaches, stock.reach, stock.lost) == (True, False, 8192, ())
    sinks = row_of(found, "sinks:window_size=8188")
    assert (sinks.longest, sinks.reaches, sinks.lost) == (None, True, ("text",))
    assert sinks.reading < stock.reading / 6
    assert row_of(found, "quantised:bits=2").lost == ("precision",)
    assert found.methods[0].spec == "sinks:window_size=8188"  # the only one that reads it all


@pytest.mark.parametrize(
    ("spec", "lost"),
    [
        ("hip", ("attention",)),
        ("duo:heads=0.0/0.1", ("attention",)),
        ("longheads:chunk_size=64,num_chunks=4", ("positions", "attention")),
        ("longgen:window_size=128", ("attention", "needs training")),
    ],
)
def test_what_sees_less_of_a_text_says_so(small, spec, lost):
    (row,) = longreach.plan_memory(small, context=1024, memory=200 * GIB, methods=[spec]).methods
    assert row.lost == lost


def test_the_longest_text_and_the_largest_batch_are_those_that_fit(large):
    found = longreach.plan_memory(large, context=16384, memory=200 * GIB, methods=[""])
    (stock,) = found.methods
    room = SHARE * 200 * GIB - found.weights
    layer = 2 * 8 * 128 * 2
    need = lambda tokens: 80 * layer * (tokens + 256) + layer * tokens  # noqa: E731
    assert need(stock.longest) <= room < need(stock.longest * 1.01)
    assert stock.largest_batch == room // need(16384)
    assert stock.fits
    (less,) = longreach.plan_memory(large, context=131072, memory=160 * GIB, methods=[""]).methods
    assert (less.fits, less.largest_batch) == (False, 0)
    assert less.longest < 131072


def test_speed_is_a_roofline(large):
    (one,) = longreach.plan_memory(large, context=8192, memory=320 * GIB, methods=[""]).methods
    read = 70_553_706_496 * 2 + (8192 + 256) * 80 * 2 * 8 * 128 * 2
    assert one.tokens_per_second == pytest.approx(1e11 / read, rel=0.01)
    multiplied = 70_553_706_496 - 128256 * 8192  # a table is looked up, not multiplied with
    attended = 4 * 64 * 128 * 80 * 8192**2 / 2
    assert one.prefill_seconds == pytest.approx((2 * multiplied * 8192 + attended) / 1e12, rel=0.01)


def test_methods_are_chosen_for_the_length():
    beyond, inside = ([unparse(stack) for stack in to_compare(512, context)] for context in (2048, 256))
    assert {"", "yarn:factor=4", "sinks:window_size=508", "quantised", "snapkv:budget=256"} <= set(beyond)
    assert {"", "quantised", "snapkv:budget=32"} <= set(inside)
    assert not any(spec.startswith("yarn") for spec in inside)


def test_a_timed_run():
    found = longreach.plan_memory("nano", context=64, memory=8 * GIB, methods=["", "quantised"], measure=True)
    assert found.measured_tokens == 64
    assert all(0 < row.prefill_seconds < 60 and row.tokens_per_second > 0 for row in found.methods)


def test_methods_of_ones_own_may_be_stacked():
    (found,) = longreach.plan_memory("nano", context=2048, memory=8 * GIB, methods=["yarn:factor=auto+quantised"]).methods
    assert (found.spec, found.reaches, found.lost) == ("yarn:factor=4+quantised", True, ("positions", "precision"))


def test_what_is_refused(large, tmp_path):
    with pytest.raises(
        InputError, match=r"the weights of .* alone take 141\.1 GB in bfloat16, and 23\.2 GB may be used; give more --memory"
    ):
        longreach.plan_memory(large, context=8192, memory=24 * GIB)
    with pytest.raises(InputError, match="context=0 must be at least 1"):
        longreach.plan_memory(large, context=0)
    with pytest.raises(InputError, match="batch=0 must be at least 1"):
        longreach.plan_memory(large, context=10, batch=0)
    with pytest.raises(SpecError, match="unknown method 'quantized'; did you mean quantised"):
        longreach.plan_memory(large, context=8192, methods=["quantized"])
    with pytest.raises(InputError, match="the weights of .* are not here"):
        longreach.plan_memory(large, context=8192, memory=320 * GIB, measure=True)
    with pytest.raises(UnsupportedError, match="pyramid"):
        longreach.plan_memory("nano", context=512, methods=["pyramid"])
    with pytest.raises(CheckpointError):
        longreach.plan_memory(tmp_path / "nowhere", context=8192)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
    with pytest.raises(InputError, match="is no causal language model"):
        longreach.plan_memory(tmp_path, context=512)


def test_buffers_have_the_room_that_reading_makes():
    assert room_in_channels(900, 900, 512, 910, 10, grows=True) == (1350, 1350)  # 512 made room for 768, and 900 for half as many again
    assert room_in_channels(100 + 512, 5120, 512, 100, 10, grows=False) == (918, 100 + 1 + 49)  # what is much too large is given back
    assert room_in_pages(1, 20) == 25  # 16 at first, then 17 and a half
    assert room_in_pages(20, 20) == 30
    assert room_in_pages(0, 0) == 0


def test_many_tokens_shrink_with_the_text():
    stack = longreach.parse("sinks:num_sinks=4,window_size=8000")
    lengths = lengths_for(stack, 128_000)
    assert (lengths.short % 1024, lengths.long - lengths.short) == (128_000 % 1024, 1024)
    (smaller,) = lengths.settings(stack, lengths.short)
    assert (smaller.num_sinks, smaller.window_size) == (4, lengths.short // 16)
    assert lengths_for(stack, 1500).short == 1500  # as short as that, it is read itself


def test_weights_are_counted_in_the_dtype(large):
    assert longreach.plan_memory(large, context=8192, memory=640 * GIB, methods=[""], dtype="float32").weights == 70_553_706_496 * 4
