"""What methods let a layer see, by theory."""

import math

import pytest

from longreach.analysis.reach import reach_of
from longreach.attention.bias.rpe_family import RpeFamily
from longreach.core.bands import LayerContext
from longreach.core.errors import InputError
from longreach.core.spec import parse

LAYER = LayerContext(layer_idx=0, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=16, hidden_size=64, trained_window=64)


def reach(spec, epsilon=0.01):
    return reach_of(parse(spec), LAYER, epsilon)


@pytest.mark.parametrize(
    ("spec", "window", "sinks"),
    [("lm_infinite:num_sinks=4,window_size=16", 16, 4), ("sinks:num_sinks=0,window_size=8", 8, 0), ("sinks:window_size=5+log_n", 5, 4)],
)
def test_windows_are_seen_to_their_last_token(spec, window, sinks):
    found = reach(spec)
    assert (found.window, found.sinks, found.heads) == (window, sinks, ())


@pytest.mark.parametrize(
    "spec", ["yarn:factor=8", "log_n", "self_extend:neighbours=8,group=2", "longheads:chunk_size=8,num_chunks=4", "full"]
)
def test_what_neither_biases_nor_cuts_has_no_reach(spec):
    assert reach(spec) is None


def test_every_head_of_a_bias_has_a_field():
    found = reach("rpe_family:series=type1")
    assert found.window is None
    assert [head.tokens for head in found.heads] == [61.0] * 4
    assert reach("rpe_family:series=harmonic").heads[0].tokens == math.inf


def test_a_window_ends_a_bias():
    found = reach("rpe_family:series=harmonic+lm_infinite:num_sinks=0,window_size=20")
    assert found.window == 20
    weights = [1 / n for n in range(1, 21)]
    wanted = next(n for n in range(1, 21) if sum(weights[:n]) >= 0.99 * sum(weights))
    assert (found.heads[0].converges, found.heads[0].tokens) == (True, wanted)


def test_two_biases_add_up():
    both = reach("rpe_family:series=harmonic+rpe_family:series=harmonic")
    assert both.heads == reach("rpe_family:series=type1").heads


def test_a_bias_that_is_learned_needs_its_weights(monkeypatch):
    monkeypatch.setattr(RpeFamily, "bias", lambda self, distance, layer: {}["table"])
    with pytest.raises(InputError, match="is learned, and 'table' is not here; give a model that has it"):
        reach("rpe_family:series=type1")


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -1.0, math.nan])
def test_shares_out_of_range_are_refused(epsilon):
    with pytest.raises(InputError, match="must be between 0 and 1"):
        reach("rpe_family:series=type1", epsilon)
