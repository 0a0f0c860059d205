"""Sums of the last values, by arXiv:2308.07661 and arXiv:2311.12678."""

from dataclasses import replace

import pytest
import torch

import longreach
from longreach.attention.linear import extractor
from longreach.attention.linear.extractor import Extractor
from longreach.core.bands import PROBE
from longreach.core.errors import LongreachError
from longreach.testing.conformance.base import cached_logits, logits
from longreach.testing.models import random_ids, tiny_model
from tests.attention.linear import one_layer
from tests.attention.linear.one_layer import DIM, HEADS

FORMS, LENGTH = ("she", "he", "we", "me"), 30


def random_values():
    """q [1, H, T, D], v [1, 1, T, D]: one key-value head for all."""
    q, _, v = one_layer.random_text(LENGTH)
    return q, v[:, :1]


def layer_of(method):
    return one_layer.layer_of(method, groups=1)


def read(method, layer, q, v, first=0):
    """What the queries from `first` on get, [H, n, D]."""
    return one_layer.read(method, layer, q[:, :, first:], v, v, first)[0][0]


def by_definition(method, layer, q, v):
    return method.outputs(*one_layer.definition(method, layer, q, v, v))


@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_sum_over_distances_times_the_query(form):
    method = Extractor(length=9, form=form)
    layer, (q, v) = layer_of(method), random_values()
    taps = layer.weights.get("extractor.taps")
    wanted = torch.zeros(HEADS, LENGTH, DIM, dtype=torch.float64)
    for head in range(HEADS):
        for t in range(LENGTH):
            places = [place for place in range(t + 1) if t - place < 9]
            for place in places:
                value = v[0, 0, place]
                weighed = {
                    "she": lambda value, d, head=head: value @ taps[head, d],
                    "he": lambda value, d, head=head: value * taps[head, d],
                    "we": lambda value, d, head=head: value * taps[head, d],
                    "me": lambda value, d: value,
                }[form](value, t - place)
                wanted[head, t] += q[0, head, t] * weighed / len(places) ** 0.5
    torch.testing.assert_close(by_definition(method, layer, q, v), wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(read(method, layer, q, v), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("together", [1, 16])
def test_queries_may_be_computed_a_few_at_a_time(monkeypatch, form, together):
    method = Extractor(length=9, form=form)
    layer, (q, v) = layer_of(method), random_values()
    wanted = by_definition(method, layer, q, v)
    monkeypatch.setattr(extractor, "_ROWS", together)
    for first in (0, 3, 9, 26, 29):
        torch.testing.assert_close(read(method, layer, q, v, first), wanted[:, first:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_length_of_one_is_the_query_times_its_own_value(form):
    method = Extractor(length=1, form=form)
    layer, (q, v) = layer_of(method), random_values()
    own = layer.weights["extractor.taps"][:, 0] if form != "me" else torch.ones(HEADS, dtype=torch.float64)
    weighed = v[0] @ own if form == "she" else v[0] * own.view(HEADS, 1, -1)
    for first in (0, LENGTH - 1):
        torch.testing.assert_close(read(method, layer, q, v, first), (q[0] * weighed)[:, first:], rtol=0, atol=1e-12)


def test_sums_are_divided_by_the_root_of_how_many_there_are():
    method = Extractor(length=9, form="me")
    out = read(method, layer_of(method), torch.ones(1, HEADS, 20, DIM), torch.ones(1, 1, 20, DIM))
    torch.testing.assert_close(out[0, :, 0], torch.arange(1, 21).clamp(max=9).sqrt())


@pytest.mark.parametrize("form", FORMS)
def test_nothing_beyond_the_length_is_read(form):
    method = Extractor(length=9, form=form)
    layer, (q, v) = layer_of(method), random_values()
    wanted, other = read(method, layer, q, v), v.clone()
    other[:, :, 4] += 1
    moved = (read(method, layer, q, other) - wanted).abs().amax((0, 2)) > 1e-9
    assert moved.nonzero()[:, 0].tolist() == list(range(4, 13))
    gone = v.clone()
    gone[:, :, : LENGTH - 9] = torch.nan  # what is decoded does not look at them
    torch.testing.assert_close(read(method, layer, q, gone, LENGTH - 1), wanted[:, -1:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", ["she", "he", "we"])
def test_before_training_sums_vary_as_values_do(form):
    method = Extractor(length=64, form=form)
    layer, v = one_layer.layer_of(method, heads=8, groups=8, dim=16), 3 * torch.randn(4, 8, 256, 16)
    out, _ = one_layer.read(method, layer, torch.ones_like(v), v, v)
    assert out[:, :, :8].std().item() == pytest.approx(3, rel=0.2)
    assert out[:, :, 64:].std().item() == pytest.approx(3, rel=0.2)


def test_sums_lose_nothing_over_a_long_text():
    v = 100 + torch.randn(1, 1, 100_003, 2, generator=torch.Generator().manual_seed(0))
    wanted = v.double().unfold(2, 11, 1).sum(-1)
    assert (extractor._moving(v, 11) - wanted).abs().max() < 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_gives_numbers(form):
    torch.manual_seed(0)
    model, ids = tiny_model(), random_ids(1, 40)
    longreach.equip(model, f"extractor:form={form}").bfloat16()
    with longreach.apply(model, f"extractor:form={form}"):
        found = logits(model, ids)
        assert found.isfinite().all()
        assert (cached_logits(model, ids, (20, *[1] * 20)) - found).abs().max() < 0.2


def test_weights_are_as_many_as_the_form_says():
    layer = replace(PROBE, num_heads=3, head_dim=4)
    shapes = {form: [tuple(value.shape) for value in Extractor(length=5, form=form).weights(layer).values()] for form in FORMS}
    assert shapes == {"she": [(3, 5, 4, 4)], "he": [(3, 5, 4)], "we": [(3, 5)], "me": []}


def test_values_of_another_width_are_refused():
    method = Extractor(length=9, form="me")
    with pytest.raises(LongreachError, match="queries have 8 dimensions and values 6"):
        read(method, layer_of(method), torch.ones(1, HEADS, 5, DIM), torch.ones(1, 1, 5, 6))


def test_a_factor_on_logits_is_refused():
    model = longreach.equip(tiny_model(), "extractor:length=4+log_n")
    with pytest.raises(LongreachError, match="factor on logits"), longreach.apply(model, "extractor:length=4+log_n"):
        pass


def test_each_form_is_held_to_what_the_paper_says_of_it():
    better, close = Extractor.info.claims
    assert [Extractor(form=form).info.claims for form in FORMS] == [(better,), (close,), (close,), (close,)]
    assert ("SHE" in better.text, better.at_most) == (True, 0.0)
    assert ("the HE, the WE and the ME" in close.text, close.at_most) == (True, 0.05)
