"""The weights of each series, and what analysis says of their sum, against plain sums."""

import math

import pytest
import torch

from longreach.attention.bias.rpe_family import RpeFamily
from longreach.core.bands import LayerContext

LAYER = LayerContext(layer_idx=0, num_layers=1, num_heads=3, num_kv_heads=1, head_dim=2, hidden_size=64, trained_window=2)
# The weight of the distance t, as the docstring states it.
WEIGHTS = {
    "exponential": (RpeFamily(series="exponential", rate=0.5), lambda t: math.exp(-0.5 * t)),
    "power": (RpeFamily(series="kerple_power", rate=0.25, exponent=2.0), lambda t: math.exp(-0.25 * t * t)),
    "log": (RpeFamily(series="kerple_log", rate=3.0, exponent=1.5), lambda t: 1 / (1 + 3 * t) ** 1.5),
    "type1": (RpeFamily(series="type1"), lambda t: 1 / (1 + t) ** 2),
    "type2": (RpeFamily(series="type2"), lambda t: math.exp(-(math.log(1 + t) ** 2))),
    "harmonic": (RpeFamily(series="harmonic"), lambda t: 1 / (1 + t)),
    "bertrand": (RpeFamily(series="bertrand", exponent=2.0), lambda t: 1 / ((t + 2) * math.log(t + 2) ** 2)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_bias_is_the_logarithm_of_the_weight(name):
    method, weight = WEIGHTS[name]
    bias = method.bias(torch.arange(50).view(5, 10), LAYER)
    assert bias.shape == (3, 5, 10)
    assert bias.dtype == torch.float32
    wanted = torch.tensor([weight(t) for t in range(50)], dtype=torch.float64).view(5, 10)
    torch.testing.assert_close(bias.double().exp(), wanted.expand(3, 5, 10), rtol=1e-4, atol=1e-30)


@pytest.mark.parametrize(
    ("method", "whole"),
    [
        (RpeFamily(series="exponential", rate=0.5), 1 / (1 - math.exp(-0.5))),
        (RpeFamily(series="type1"), math.pi**2 / 6),
        (RpeFamily(series="kerple_log", rate=1.0, exponent=4.0), math.pi**4 / 90),
        (RpeFamily(series="kerple_log", rate=2.0, exponent=2.0), math.pi**2 / 8),  # of the odd numbers
    ],
    ids=str,
)
@pytest.mark.parametrize("epsilon", [0.3, 0.05, 0.01, 0.001])
def test_the_closed_form_is_the_least_number_of_weights(method, whole, epsilon):
    total, count = 0.0, 0
    while total < (1 - epsilon) * whole:
        total += float(method.bias(torch.tensor(count), LAYER)[0].double().exp())
        count += 1
    assert method.receptive_field(epsilon) == count


def test_what_diverges_has_no_end_and_what_has_no_closed_form_says_so():
    assert RpeFamily(series="harmonic").receptive_field(0.01) == math.inf
    assert RpeFamily(series="kerple_log", rate=1.0, exponent=1.0).receptive_field(0.5) == math.inf
    assert RpeFamily(series="exponential", rate=0.0).receptive_field(0.01) == math.inf
    assert RpeFamily(series="type2").receptive_field(0.01) is None
