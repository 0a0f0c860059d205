"""Which layers see everything."""

from dataclasses import replace

import pytest

from longreach.attention.sparse.mixed_span import MixedSpan
from longreach.core.bands import PROBE, Band


def contexts(layers):
    return [replace(PROBE, layer_idx=layer, num_layers=9, full_layers=layers, probe=False) for layer in layers]


@pytest.mark.parametrize(
    ("setting", "layers", "whole"),
    [
        ({"full_layers": 2}, (0, 1, 2, 3, 4), [3, 4]),
        ({"full_layers": 2, "place": "first"}, (1, 3, 5), [1, 3]),
        ({"full_layers": 2, "place": "spread"}, tuple(range(8)), [3, 7]),
        ({"full_layers": 3, "place": "spread"}, (0, 2, 4), [0, 2, 4]),
        ({"full_layers": 0}, (0, 1), []),
        ({"full_layers": 3}, (0, 1), [0, 1]),
        ({"full_layers": 3, "place": "spread"}, (0, 1), [0, 1]),
    ],
)
def test_so_many_layers_see_everything(setting, layers, whole):
    method = MixedSpan(**setting, block_size=4)
    assert [each.layer_idx for each in contexts(layers) if method.bands(each) == (Band(),)] == whole
