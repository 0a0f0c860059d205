import math

import pytest
import torch

from longreach.engine.apply import apply
from longreach.positions.base import Wrapped
from longreach.positions.scaling.dynamic_ntk import DynamicNtk
from longreach.positions.scaling.linear import Linear
from longreach.positions.scaling.yarn import Yarn
from longreach.positions.wrappers.resonance import Resonance
from longreach.testing.models import random_ids, tiny_model
from tests.positions.ropes import ROPES, assert_close, in_transformers

INNER = (None, Linear(factor=4), Yarn(factor=8), Yarn(factor=8, attention_factor=1.3))


def method_of(inner):
    return Resonance() if inner is None else Wrapped(inner=inner, outer=Resonance())


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("inner", INNER, ids=str)
def test_wavelengths_are_rounded_to_whole_tokens(rope, inner):
    # Algorithm 1 of the paper, on whatever frequencies the method inside gives.
    found, factor = (rope.inv_freq(), 1.0) if inner is None else inner.inv_freq(rope, 1)
    wavelengths = [round(2 * math.pi / theta) for theta in found.double().tolist()]
    ours, attention_factor = method_of(inner).inv_freq(rope, 1)
    assert_close(ours, [2 * math.pi / wavelength for wavelength in wavelengths])
    assert attention_factor == factor


def test_dimensions_that_turn_in_the_window_meet_only_angles_of_the_window():
    # What it is for: beyond the window, such a dimension repeats the angles it had inside.
    rope = ROPES[0]
    ours, _ = Resonance().inv_freq(rope, 1)
    turning = ours[2 * math.pi / ours.double() < rope.trained_window].double()
    positions = torch.arange(8 * rope.trained_window, dtype=torch.float64)
    for frequencies, repeats in ((turning, True), (rope.inv_freq()[: len(turning)].double(), False)):
        angles = (positions[:, None] * frequencies) % (2 * math.pi)
        inside, beyond = angles[: rope.trained_window], angles[rope.trained_window :]
        order = inside.sort(0).values
        place = torch.searchsorted(order.T.contiguous(), beyond.T.contiguous()).clamp(1, len(order) - 1)
        near = torch.minimum((order.T.gather(1, place) - beyond.T).abs(), (order.T.gather(1, place - 1) - beyond.T).abs())
        near = torch.minimum(near, 2 * math.pi - beyond.T)  # just below a whole turn
        assert (near.max() < 2e-3) == repeats, "float32 frequencies drift by a thousandth of a radian over 16k tokens"


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("inner", INNER, ids=str)
@pytest.mark.parametrize("windows", [0.5, 8])
def test_the_export_is_exact_for_short_and_long_texts(rope, inner, windows):
    method = method_of(inner)
    written = method.rope_parameters(rope)
    theirs, factor = in_transformers(rope, written.pop("rope_type"), seq_len=int(windows * rope.trained_window), **written)
    ours, attention_factor = method.inv_freq(rope, 1)
    assert_close(ours, theirs)
    assert factor == pytest.approx(attention_factor)


def test_it_follows_a_method_that_depends_on_the_length():
    rope, method = ROPES[0], Wrapped(inner=DynamicNtk(step=16), outer=Resonance())
    assert method.info.length_dependent
    assert not method.info.exportable
    assert method.length_step(rope) == 16
    model, ids = tiny_model(max_position_embeddings=32), random_ids(1, 64)
    with torch.no_grad(), apply(model, "dynamic_ntk:step=16"):
        alone = model(ids, use_cache=False).logits
    with torch.no_grad(), apply(model, "dynamic_ntk:step=16+resonance"):
        both = model(ids, use_cache=False).logits
    assert (both - alone).abs().max() > 0.1
