"""In every family, methods give what their definitions give in float64; also stacked on each other and on scaled frequencies."""

import pytest
import torch
from transformers import DynamicCache

from longreach.core.errors import UnsupportedError
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.whole_length import whole_length
from longreach.positions.scaling.dynamic_ntk import DynamicNtk
from longreach.testing.conformance._snapshot import snapshot, unchanged
from longreach.testing.models import FAMILIES, SCALED, random_ids, tiny_model
from longreach.testing.naive import naive_logits

LENGTH, TOLERANCE = 50, 1e-4
SPECS = (
    "self_extend:neighbours=10,group=7+log_n:window_size=16",
    "sinks:num_sinks=3,window_size=12",
    "lm_infinite:num_sinks=2,window_size=9,limit=5",
    "h2o:budget=16,slack=4+log_n:window_size=16",
)
NO_FULL_LAYERS = ("mistral",)
NO_POSITIONS = ("cohere2", "exaone4")  # in their full layers: methods that only move positions are refused (test_engine_refusals)


def compare(model, spec):
    """Hold the engine under `spec`, at once and left-padded in chunks, to the definition; returns how far the method moves the logits."""
    ids, mask = random_ids(2, LENGTH), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :11] = 0
    with torch.no_grad(), whole_length(model, LENGTH):  # in chunks, a checkpoint with frequencies for short texts begins under those
        stock = model(ids, use_cache=False).logits
        before = snapshot(model)
        wanted, wanted_padded = naive_logits(model, parse(spec), ids), naive_logits(model, parse(spec), ids, mask.bool())
        with apply(model, spec):
            past, parts = DynamicCache(config=model.config.get_text_config()), []
            for end in (7, 14, 30, 31, 50):
                begin = past.get_seq_length()
                parts.append(model(ids[:, begin:end], attention_mask=mask[:, :end], **cache_argument(model, past)).logits)
            torch.testing.assert_close(model(ids, use_cache=False).logits, wanted, rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(torch.cat(parts, 1)[mask.bool()], wanted_padded[mask.bool()], rtol=0, atol=TOLERANCE)
        assert torch.equal(model(ids, use_cache=False).logits, stock)
        unchanged(before, snapshot(model), "after the context")
    return float((wanted - stock).abs().max())


# Each family with one of the specs, in turn, and the first family with all of them.
SEEING = [family for family in FAMILIES if family not in NO_FULL_LAYERS]
PAIRS = {(family, SPECS[number % len(SPECS)]) for number, family in enumerate(SEEING)} | {(SEEING[0], spec) for spec in SPECS}


@pytest.mark.parametrize(("family", "spec"), sorted(PAIRS))
def test_every_family_runs_policies(family, spec):
    if family in NO_POSITIONS:
        spec = spec.replace("self_extend:neighbours=10,group=7+", "")
    window = {} if family in SCALED else {"max_position_embeddings": 32}
    assert compare(tiny_model(family, **window), spec) > 0.1


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in (*NO_FULL_LAYERS, *NO_POSITIONS, *SCALED)][::3])
def test_every_family_runs_frequencies_that_depend_on_the_length(family):
    assert compare(tiny_model(family, max_position_embeddings=32), "dynamic_ntk:factor=2,step=16") > 0.1


@pytest.mark.parametrize(
    "spec",
    [
        "dynamic_ntk:factor=2,step=8+self_extend:neighbours=10,group=7+log_n",
        "dynamic_ntk:step=8+full",
        "self_extend:neighbours=10,group=7+full",
        "sinks:window_size=8+log_n:window_size=16",
        "log_n+log_n:window_size=8+rerope:window_size=9,leak=3",
    ],
)
def test_methods_stack(spec):
    assert compare(tiny_model(max_position_embeddings=32), spec) > 0.1


@pytest.mark.parametrize("positions", ["yarn:factor=4", "linear:factor=3", "ntk:factor=2"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_policies_stack_on_scaled_frequencies(family, positions):
    model, policy, ids = tiny_model(family, max_position_embeddings=32), "self_extend:neighbours=10,group=7+log_n", random_ids(1, LENGTH)
    with torch.no_grad():
        with apply(model, positions):  # the window is the model's own, whatever its config says under yarn
            wanted = naive_logits(model, parse(f"{policy}:window_size=32"), ids)
        for spec in (f"{positions}+{policy}", f"{policy}+{positions}"):
            with apply(model, spec):
                torch.testing.assert_close(model(ids, use_cache=False).logits, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("family", ["llama_longrope", "llama_dynamic"])
def test_policies_turn_by_the_frequencies_of_the_whole_text(family):
    """Also where they move far keys to positions at which a text by itself would have others."""
    model, ids, policy = tiny_model(family), random_ids(1, 200), "self_extend:neighbours=10,group=7+log_n"
    rope = dict(model.config.rope_parameters)
    if family == "llama_dynamic":
        rope = {"rope_type": "default", "rope_theta": 10_000 * (4 * 200 / 128 - 3) ** (16 / 14)}
    else:
        rope["short_factor"] = rope["long_factor"]
    fixed = tiny_model("llama", rope_parameters=rope)
    with torch.no_grad(), apply(model, policy), apply(fixed, policy):
        ours, wanted = (each(ids, use_cache=False).logits for each in (model, fixed))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=TOLERANCE)


class Sharpening(DynamicNtk):
    """Its factor on cos and sin depends on the length, too: rows of a batch with different padding have different ones."""

    def inv_freq(self, rope, seq_len):
        return super().inv_freq(rope, seq_len)[0], 1.0 + seq_len / 200


def test_the_factor_on_cos_and_sin_may_follow_the_length():
    model, method = tiny_model(max_position_embeddings=32), Sharpening(step=8)
    ids, mask = random_ids(2, LENGTH), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :13] = 0
    with torch.no_grad():
        wanted = naive_logits(model, (method,), ids, mask.bool())[mask.bool()]
        with apply(model, method):
            ours = model(ids, attention_mask=mask, use_cache=False).logits[mask.bool()]
    torch.testing.assert_close(ours, wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("yarn:factor=2+ntk:factor=2", "two positions methods"),
        ("dynamic_ntk+linear:factor=2", "two positions methods"),
        ("self_extend:neighbours=8,group=2+rerope:window_size=8", "two methods that decide what a query sees"),
        ("sinks:window_size=8+self_extend:neighbours=8,group=2", "two methods that decide what a query sees"),
        ("full+sinks:window_size=8", "two cache policies"),
        ("dynamic_ntk+sinks:window_size=8", "its window never grows"),
    ],
)
def test_pairs_that_cannot_work_are_refused(spec, why):
    model, ids = tiny_model(), random_ids(1, 20)
    stock = model(ids, use_cache=False).logits
    with pytest.raises(UnsupportedError, match=why), apply(model, spec):
        pass
    assert torch.equal(model(ids, use_cache=False).logits, stock)


def test_two_models_at_once():
    models, ids = [tiny_model(seed=seed) for seed in (0, 1)], random_ids(1, LENGTH)
    specs = ("self_extend:neighbours=10,group=7", "sinks:window_size=12")
    with torch.no_grad():
        wanted = [naive_logits(model, parse(spec), ids) for model, spec in zip(models, specs, strict=True)]
        with apply(models[0], specs[0]):
            with apply(models[1], specs[1]):
                for model, logits in zip(models, wanted, strict=True):
                    torch.testing.assert_close(model(ids, use_cache=False).logits, logits, rtol=0, atol=TOLERANCE)
            torch.testing.assert_close(models[0](ids, use_cache=False).logits, wanted[0], rtol=0, atol=TOLERANCE)
