import math

import pytest
import torch

from longreach.positions.base import Rope
from longreach.positions.scaling.llama3 import Llama3
from tests.positions.ropes import ROPES, in_transformers


@pytest.mark.parametrize("rope", ROPES, ids=str)
@pytest.mark.parametrize("settings", [{"factor": 8.0}, {"factor": 32.0, "low_freq_factor": 2.0, "high_freq_factor": 16.0}])
def test_it_agrees_with_transformers(rope, settings):
    ours, attention_factor = Llama3(**settings).inv_freq(rope, 1)
    theirs, their_factor = in_transformers(
        rope,
        "llama3",
        original_max_position_embeddings=rope.trained_window,
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0, **settings},
    )
    assert torch.equal(ours.double(), theirs), "to the last bit"
    assert attention_factor == their_factor == 1.0


def test_the_frequencies_of_llama_3_1():
    # The published checkpoints: base 500000, 128 dimensions, 8192 tokens, factor 8; dimensions of 2048 tokens a turn are kept,
    # of 8192 and more divided by 8, and between them the share that is kept falls with the turns, from 4 to 1.
    rope, kept, divided, mixed = Rope(theta=500_000.0, dim=128, trained_window=8192), 0, 0, 0
    ours, _ = Llama3(factor=8).inv_freq(rope, 1)
    for i, found in enumerate(ours.tolist()):
        theta = 500_000.0 ** (-2 * i / 128)
        wavelength = 2 * math.pi / theta
        if wavelength < 2048:
            kept += found == pytest.approx(theta, rel=1e-6)
        elif wavelength > 8192:
            divided += found == pytest.approx(theta / 8, rel=1e-6)
        else:
            share = (8192 / wavelength - 1) / 3
            mixed += found == pytest.approx(share * theta + (1 - share) * theta / 8, rel=1e-6)
    assert (kept, mixed, divided) == (29, 6, 29)
