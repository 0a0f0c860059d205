"""Convergence and receptive fields by numbers, against analysis and against plain sums."""

import math

import pytest
import torch

from longreach.analysis.series import fields_of
from longreach.attention.bias.rpe_family import RpeFamily
from longreach.core.bands import LayerContext

LAYER = LayerContext(layer_idx=0, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=2, hidden_size=64, trained_window=2)


def field(method, epsilon=0.01):
    first, second = fields_of(lambda distance: method.bias(distance, LAYER).double(), epsilon)
    assert first == second
    return first


def of(function, epsilon=0.01):
    """The field of one head with these log weights."""
    return fields_of(lambda distance: function(distance)[None], epsilon)[0]


CLEAR = [
    *(RpeFamily(series="exponential", rate=rate) for rate in (2.0, 0.25, 2**-8, 1e-4, 0.0)),
    *(RpeFamily(series="kerple_power", rate=0.1, exponent=exponent) for exponent in (0.25, 0.5, 2.0)),
    *(RpeFamily(series="kerple_log", rate=rate, exponent=p) for rate in (0.001, 1.0, 30.0) for p in (0.5, 0.99, 1.0, 1.01, 1.5, 2.0, 3.0)),
    *(RpeFamily(series=series) for series in ("type1", "type2", "harmonic")),
    *(RpeFamily(series="bertrand", exponent=exponent) for exponent in (0.0, 0.5, 1.5, 2.0, 4.0)),
]


@pytest.mark.parametrize("method", CLEAR, ids=str)
def test_the_tests_agree_with_analysis(method):
    assert field(method).converges is method.converges


@pytest.mark.parametrize(
    "method",
    [
        RpeFamily(series="bertrand", exponent=1.0),  # diverges as slowly as log log n
        RpeFamily(series="bertrand", exponent=1.05),
        RpeFamily(series="kerple_power", rate=0.1, exponent=0.1),  # converges, and its weights only begin to fall at 2^52
    ],
    ids=str,
)
def test_what_they_cannot_tell_is_undecided(method):
    found = field(method)
    assert found.converges is None
    assert found.tokens is None


CLOSED = [method for method in CLEAR if method.receptive_field(0.1) is not None]


@pytest.mark.parametrize(("method", "epsilon"), [(method, (0.3, 0.001)[number % 2]) for number, method in enumerate(CLOSED)], ids=str)
def test_fields_are_those_of_the_closed_form(method, epsilon):
    wanted, found = method.receptive_field(epsilon), field(method, epsilon)
    if wanted == math.inf:
        assert found.tokens == math.inf
    elif wanted is None or wanted > 2**52:
        assert found.tokens is None
    elif found.exact:
        assert abs(found.tokens - wanted) <= max(1, 1e-5 * wanted)
    else:
        assert found.tokens == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("series", [RpeFamily(series="type2"), RpeFamily(series="kerple_power", rate=0.1, exponent=2.0)], ids=str)
def test_fields_without_a_closed_form_are_those_of_a_plain_sum(series):
    weights = series.bias(torch.arange(300_000), LAYER)[0].double().exp()
    for epsilon in (0.2, 0.01):
        wanted = int((weights.cumsum(0) < (1 - epsilon) * weights.sum()).sum()) + 1
        assert field(series, epsilon).tokens == wanted


def test_a_window_cuts_the_series_off():
    def window(t):
        return torch.zeros_like(t).masked_fill(t >= 100, -math.inf)

    found = of(window, 0.015)
    assert (found.converges, found.tokens, found.exact) == (True, 99.0, True)
    assert of(window, 0.505).tokens == 50


def test_weights_that_rise_and_fall_are_never_taken_for_what_they_are_not():
    assert of(lambda t: -2 * torch.log1p(t) + torch.sin(torch.log1p(t))).converges is True
    assert of(torch.sin).converges is not True


def test_numbers_that_are_none_decide_nothing():
    assert of(lambda t: torch.full_like(t, math.nan)).converges is None
