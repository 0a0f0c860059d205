"""Which layers see everything."""

from dataclasses import replace

import pytest

from longreach.attention.sparse.longgen import LongGen
from longreach.core.bands import PROBE, Band


@pytest.mark.parametrize(
    ("layers", "whole"), [((0,), [0]), ((0, 1), [0]), ((0, 1, 2), [1]), (tuple(range(6)), [2, 3]), ((1, 3, 5, 7), [3, 5]), ((2, 5, 8), [5])]
)
def test_the_middle_third_sees_everything(layers, whole):
    contexts = [replace(PROBE, layer_idx=layer, num_layers=9, full_layers=layers) for layer in layers]
    assert [each.layer_idx for each in contexts if LongGen(window_size=4).bands(each) == (Band(),)] == whole
