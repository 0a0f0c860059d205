"""The measured field is what the model can see, and shrinks as its attention decays."""

import numpy as np
import pytest
import torch

from longreach.analysis.receptive_field import measure_field
from longreach.core.errors import InputError, LongreachError
from longreach.engine.apply import apply
from longreach.engine.interface import interface
from longreach.testing.models import random_ids, tiny_learned, tiny_model


def texts(count=3, length=61):
    return [ids.numpy().astype(np.int32) for ids in random_ids(count, length)]


@pytest.mark.parametrize("window", [1, 7, 16])
def test_one_layer_with_a_window_sees_the_window_and_nothing_else(window):
    model = tiny_model("mistral", num_hidden_layers=1, sliding_window=window)
    found = measure_field(model, texts(), 0.0)
    assert found.tokens == window
    assert found.each == (window,) * 3
    assert (found.length, found.left_out, found.first) == (60, 1, 0.0)


def test_a_policy_with_a_window_bounds_each_layer():
    for layers in (1, 2):
        model = tiny_model("llama", num_hidden_layers=layers)
        assert measure_field(model, texts(), 0.0).tokens == 59  # all but the first token
        with apply(model, "lm_infinite:num_sinks=0,window_size=9"):
            assert measure_field(model, texts(), 0.0).tokens == layers * 8 + 1


def test_first_tokens_that_are_seen_at_any_distance_can_be_left_out():
    model = tiny_model("llama", num_hidden_layers=1)
    with apply(model, "lm_infinite:num_sinks=4,window_size=9"):
        assert measure_field(model, texts(), 0.0, left_out=1).tokens == 59
        found = measure_field(model, texts(), 0.0, left_out=4)
    assert found.tokens == 9
    assert 0 < found.first < 1


def biased(model, rate):
    """The model with a linear bias in place of what its attention compares."""

    def attend(module, query, key, value, attention_mask, **options):
        t = torch.arange(query.shape[2])
        distance = t[:, None] - t
        weights = (-rate * distance.float()).masked_fill(distance < 0, float("-inf")).softmax(-1)
        values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
        return (weights @ values).transpose(1, 2), None

    return interface(model, f"biased_{rate}", attend)


def test_the_field_shrinks_as_the_decay_grows_and_follows_theory():
    model = tiny_model("llama", num_hidden_layers=1)
    found = []
    for rate in (0.1, 0.4, 1.6):
        with biased(model, rate):
            found.append(measure_field(model, texts(8, 101), 0.01).tokens)
    assert found[0] > found[1] > found[2]
    # With attention by distance alone, gradients of one layer fall as the weights do, but for what each token is.
    for tokens, rate in zip(found[1:], (0.4, 1.6), strict=True):
        assert abs(tokens - -np.log(0.01) / rate) <= 3


def test_a_greater_share_needs_more_tokens_and_nothing_is_left_behind():
    model = tiny_learned("gpt2")
    before = dict(model.get_input_embeddings()._forward_hooks)
    wide, narrow = (measure_field(model, texts(), epsilon) for epsilon in (0.01, 0.3))
    assert wide.tokens > narrow.tokens
    assert float(wide.shares.sum()) == pytest.approx(1.0)
    assert model.get_input_embeddings()._forward_hooks == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_does_not_fit_is_refused():
    model = tiny_model()
    for wrong in ([], texts(1, 2), [*texts(1, 30), *texts(1, 31)]):
        with pytest.raises(InputError, match="texts of one length, of at least 3 tokens"):
            measure_field(model, wrong, 0.01)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(LongreachError, match="not a finite number above 0; load the model as float32"):
        measure_field(model, texts(1, 30), 0.01)


def test_the_field_under_a_bias_shrinks_with_its_theoretical_field():
    model, found = tiny_model("llama", num_hidden_layers=1), []
    for spec in ("kerple_log,rate=1,exponent=2", "exponential,rate=0.5", "exponential,rate=2"):
        with apply(model, f"rpe_family:series={spec}"):
            found.append(measure_field(model, texts(8, 101), 0.01).tokens)
    assert found[0] > found[1] > found[2]
