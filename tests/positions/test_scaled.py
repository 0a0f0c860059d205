"""Methods on checkpoints that are scaled already, against their definitions on the frequencies that these have, in float64.

The formulas here are written down from the papers and from what transformers documents of its rope types, and call nothing of ours.
"""

import math
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.core.spec import parse
from longreach.engine.rope_config import rope_of
from longreach.positions.base import positions_of
from tests.positions.ropes import assert_close

THETA, DIM, ORIGINAL = 10_000.0, 32, 512
SHORT, LONG = [1 + i / 40 for i in range(16)], [1 + i / 4 for i in range(16)]
# rope type -> (its settings, the window that it is scaled to)
CHECKPOINTS = {
    "yarn": ({"factor": 4.0, "original_max_position_embeddings": ORIGINAL}, 2048),
    "llama3": ({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL}, 8192),
    "linear": ({"factor": 4.0}, 2048),
    "longrope": ({"short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": ORIGINAL, "factor": 8.0}, 4096),
    "dynamic": ({"factor": 2.0}, 2048),
}


def config(kind, window=None, **changes):
    settings, stated = CHECKPOINTS[kind]
    parameters = {"rope_type": kind, "rope_theta": THETA, **settings, **changes}
    return LlamaConfig(head_dim=DIM, max_position_embeddings=window or stated, rope_parameters=parameters)


def plain(theta=THETA):
    return [theta ** (-2 * i / DIM) for i in range(DIM // 2)]


def pair_that_turns(turns, window):
    """YaRN's find_correction_dim."""
    return DIM * math.log(window / (turns * 2 * math.pi)) / (2 * math.log(THETA))


def yarn_ramp(where, window, fast=32.0, slow=1.0):
    """1 where a pair is kept; `where`: each pair's place among the pairs of a plain embedding."""
    low, high = max(math.floor(pair_that_turns(fast, window)), 0), min(math.ceil(pair_that_turns(slow, window)), DIM - 1)
    return [1 - min(max((place - low) / (high - low), 0), 1) for place in where]


def llama3_ramp(frequencies, window, low=1.0, high=4.0):
    return [min(max((window * w / (2 * math.pi) - low) / (high - low), 0), 1) for w in frequencies]


def mixed(frequencies, keep, factor):
    return [w * k + w / factor * (1 - k) for w, k in zip(frequencies, keep, strict=True)]


def own(kind, factor=None):
    """(frequencies, factor on cos and sin, window) of a checkpoint for texts as long as its window."""
    settings, window = CHECKPOINTS[kind]
    by = factor or settings.get("factor")
    if kind == "yarn":
        return mixed(plain(), yarn_ramp(range(DIM // 2), ORIGINAL), by), 0.1 * math.log(by) + 1, window
    if kind == "llama3":
        return mixed(plain(), llama3_ramp(plain(), ORIGINAL), by), 1.0, window
    if kind == "linear":
        return [w / by for w in plain()], 1.0, window
    if kind == "longrope":
        return [w / long for w, long in zip(plain(), LONG, strict=True)], math.sqrt(1 + math.log(8) / math.log(ORIGINAL)), window
    return plain(), 1.0, window


def on_top(method, frequencies, window):
    """(frequencies, factor on cos and sin) of the method's definition on top of these."""
    ntk = [(4 ** (DIM / (DIM - 2))) ** (-2 * i / DIM) for i in range(DIM // 2)]
    if method == "linear:factor=2":
        return [w / 2 for w in frequencies], 1.0
    if method == "ntk:factor=4":
        return [w * r for w, r in zip(frequencies, ntk, strict=True)], 1.0
    if method == "dynamic_ntk":  # asked for four windows
        return [w * r for w, r in zip(frequencies, ntk, strict=True)], 1.0
    if method == "clex:factor=2.5":  # without a network, NTK for the factor 2 t - 1
        return [w * r for w, r in zip(frequencies, ntk, strict=True)], 1.0
    if method in ("llama3:factor=2", "ntk_by_parts:factor=2,alpha=1,beta=4"):
        return mixed(frequencies, llama3_ramp(frequencies, window), 2), 1.0
    if method == "yarn:factor=2":
        where = [-DIM * math.log(w) / (2 * math.log(THETA)) for w in frequencies]
        return mixed(frequencies, yarn_ramp(where, window), 2), 0.1 * math.log(2) + 1
    if method == "giraffe_power:power=0.5":
        return [w * (1 - 2 * i / DIM) ** 0.5 for i, w in enumerate(frequencies)], 1.0
    if method == "giraffe_truncated":
        cut = 2 * math.pi / window
        return [w if w >= cut else cut / 16 if w >= cut / 8 else 0.0 for w in frequencies], 1.0
    if method == "resonance":
        return [2 * math.pi / round(2 * math.pi / w) for w in frequencies], 1.0
    if method == "harpe:base_min=5000,base_max=5000":
        return [w * (THETA / 5000) ** (2 * i / DIM) for i, w in enumerate(frequencies)], 1.0
    if method == "m_rope_pp:factor=2":
        first, last = frequencies[3], frequencies[9]  # 2 : 3 : 3 of 16 pairs
        keep = [min(max((w - last) / (first - last), 0), 1) for w in frequencies]
        return mixed(frequencies, keep, 2), 1.0
    assert method == "nope"
    return [0.0] * len(frequencies), 1.0


METHODS = (
    "linear:factor=2", "ntk:factor=4", "dynamic_ntk", "clex:factor=2.5", "llama3:factor=2", "ntk_by_parts:factor=2,alpha=1,beta=4",
    "yarn:factor=2", "giraffe_power:power=0.5", "giraffe_truncated", "resonance", "harpe:base_min=5000,base_max=5000",
    "m_rope_pp:factor=2", "nope",
)  # fmt: skip
MERGED = {("yarn", "yarn:factor=2"), ("llama3", "llama3:factor=2"), ("llama3", "ntk_by_parts:factor=2,alpha=1,beta=4")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_methods_act_on_what_the_checkpoint_has(kind, method):
    frequencies, attention, window = own(kind)
    rope = rope_of(config(kind))
    assert rope.trained_window == window
    assert_close(rope.inv_freq(), frequencies)
    ours, factor = positions_of(parse(method)).inv_freq(rope, 4 * window)
    if (kind, method) in MERGED:
        wanted, attention_of_both = own(kind, 2 * CHECKPOINTS[kind][0]["factor"])[:2]
    else:
        wanted, share = on_top(method, frequencies, window)
        attention_of_both = attention * share
    torch.testing.assert_close(ours.double().flatten(), torch.tensor(wanted, dtype=torch.float64), rtol=5e-6, atol=1e-12)
    assert factor == pytest.approx(attention_of_both, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "method", "factor", "changes"),
    [
        ("yarn", "yarn:factor=2", 8.0, {}),
        ("yarn", "yarn:factor=2,beta_fast=16,beta_slow=2", 8.0, {"beta_fast": 16.0, "beta_slow": 2.0}),
        ("yarn", "yarn:factor=2", 8.0, {"truncate": False}),
        ("yarn", "yarn:factor=2", 8.0, {"mscale": 1.0, "mscale_all_dim": 1.0}),
        ("yarn", "yarn:factor=2", 8.0, {"mscale": 0.7, "mscale_all_dim": 1.0}),
        ("llama3", "llama3:factor=4", 32.0, {}),
        ("llama3", "ntk_by_parts:factor=4,alpha=1,beta=4", 32.0, {}),
        ("linear", "linear:factor=3", 12.0, {}),
    ],
)
def test_two_scalings_of_one_kind_are_one_to_the_last_bit(kind, method, factor, changes):
    once, twice = rope_of(config(kind, **changes, factor=factor)), rope_of(config(kind, **changes))
    (made,) = parse(method)
    frequencies, attention = made.inv_freq(twice, 1)
    assert torch.equal(frequencies, once.inv_freq())
    assert attention == once.attention_factor
    written = made.rope_parameters(twice)
    assert written == {**written, "rope_type": kind, **changes, "factor": factor}
    assert "attention_factor" not in written
    assert written.get("original_max_position_embeddings", ORIGINAL) == ORIGINAL
    taken, scale = ROPE_INIT_FUNCTIONS[kind](config(kind, **{k: v for k, v in written.items() if k != "rope_type"}))
    assert torch.equal(taken, frequencies)
    assert scale == attention


def test_scalings_one_after_the_other_are_one():
    rope = rope_of(config("yarn"))
    (second,) = parse("yarn:factor=2")
    middle = rope_of(config("yarn", **{name: value for name, value in second.rope_parameters(rope).items() if name != "rope_type"}))
    assert middle.trained_window == 4096
    assert torch.equal(second.inv_freq(middle, 1)[0], rope_of(config("yarn", factor=16.0)).inv_freq())


@pytest.mark.parametrize("changes", [{"beta_fast": 16.0}, {"beta_slow": 2.0}])
def test_yarn_of_other_betas_acts_on_what_the_checkpoint_has(changes):
    rope = rope_of(config("yarn", **changes))
    ours, factor = parse("yarn:factor=2")[0].inv_freq(rope, 1)
    frequencies = rope.inv_freq().double().tolist()
    where = [-DIM * math.log(w) / (2 * math.log(THETA)) for w in frequencies]
    torch.testing.assert_close(
        ours.double(), torch.tensor(mixed(frequencies, yarn_ramp(where, 2048), 2), dtype=torch.float64), rtol=5e-6, atol=0
    )
    assert factor == pytest.approx((0.1 * math.log(4) + 1) * (0.1 * math.log(2) + 1))
    assert parse("yarn:factor=2")[0].rope_parameters(rope)["rope_type"] == "longrope"


def test_a_stated_attention_factor_is_kept_in_its_share_of_the_usual_one():
    rope = rope_of(config("yarn", attention_factor=1.5))
    wanted = 1.5 * (0.1 * math.log(8) + 1) / (0.1 * math.log(4) + 1)
    (made,) = parse("yarn:factor=2")
    assert made.inv_freq(rope, 1)[1] == pytest.approx(wanted)
    assert made.rope_parameters(rope)["attention_factor"] == pytest.approx(wanted)
    assert parse("yarn:factor=2,attention_factor=1.2")[0].inv_freq(rope, 1)[1] == pytest.approx(1.5 * 1.2)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_longrope_begins_with_yarn_on_top(kind):
    rope = rope_of(config(kind))
    (made,) = parse("longrope:factor=2")
    frequencies, attention, window = own(kind)
    wanted = own("yarn", 8)[0] if kind == "yarn" else on_top("yarn:factor=2", frequencies, window)[0]
    ratios = torch.tensor([w / v for w, v in zip(frequencies, wanted, strict=True)], dtype=torch.float64).cummax(0).values
    ours, factor = made.inv_freq(rope, 1)
    torch.testing.assert_close(ours.double(), torch.tensor(frequencies, dtype=torch.float64) / ratios, rtol=5e-6, atol=0)
    assert factor == pytest.approx(attention * math.sqrt(1 + math.log(2) / math.log(window)))


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_every_other_pair_is_a_longrope_over_the_plain_frequencies(kind):
    rope = rope_of(config(kind))
    method = positions_of(parse("ntk:factor=4+resonance"))
    written = method.rope_parameters(rope)
    frequencies, attention = method.inv_freq(rope, 1)
    for seq_len in (None, 10**6):
        again = LlamaConfig(head_dim=DIM, max_position_embeddings=8 * ORIGINAL, rope_parameters=written)
        taken, scale = ROPE_INIT_FUNCTIONS["longrope"](again, seq_len=seq_len)
        assert_close(taken, frequencies.double())
        assert scale == attention == rope.attention_factor
    assert written["original_max_position_embeddings"] == rope.original_window


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_when_long_keeps_what_the_checkpoint_does_inside_its_window(kind):
    rope, made = rope_of(config(kind)), positions_of(parse("linear:factor=2+when_long"))
    frequencies, attention, window = own(kind)
    short = [w / s for w, s in zip(plain(), SHORT, strict=True)] if kind == "longrope" else frequencies
    beyond = own("linear", 8)[0] if kind == "linear" else [w / 2 for w in frequencies]
    for length, wanted in ((1, short), (ORIGINAL, short), (ORIGINAL + 1, frequencies), (window, frequencies), (window + 1, beyond)):
        ours, factor = made.inv_freq(rope, length)
        assert_close(ours, wanted)
        assert factor == pytest.approx(attention)


@pytest.mark.parametrize("method", ["dynamic_ntk:factor=2", "clex"])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_what_follows_the_length_keeps_it_too(kind, method):
    rope, (made,) = rope_of(config(kind)), parse(method)
    for length in (1, ORIGINAL, ORIGINAL + 1, CHECKPOINTS[kind][1]):
        ours, wanted = made.inv_freq(rope, length), rope.own(length)
        assert torch.equal(ours[0], wanted[0])
        assert ours[1] == wanted[1]
    assert (made.inv_freq(rope, CHECKPOINTS[kind][1] + 1)[0] < rope.inv_freq()).any()


def test_heads_share_what_the_checkpoint_has():
    rope = replace(rope_of(config("llama3")), num_heads=3)
    ours, _ = parse("fope")[0].inv_freq(rope, 1)
    wanted = [w if w >= 2 * math.pi / 8192 else 0.0 for w in own("llama3")[0]]
    wanted[-1] = 0.0  # one at least stands still
    assert_close(ours, [wanted] * 3)
