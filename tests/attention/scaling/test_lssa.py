"""The weights of LSSA, by arXiv:2501.13428."""

import math

import pytest
import torch

import longreach
from longreach.attention.scaling.lssa import Lssa
from longreach.core.errors import UnsupportedError
from longreach.testing.models import random_ids, tiny_model
from tests.attention.one_head import DIM, random_head, rotated


def shares(method, q, k):
    """Weights [T, T] as they are computed."""
    return method._shares(q[None, None], k[None, None], 0)[0, 0]


def formula(q, k, power):
    """Of the whole matrix at once: softplus of log d log N times cosines, masked and divided by sums; ReLU^p(A N - O), divided again."""
    tokens = len(q)
    count = torch.arange(1, tokens + 1, dtype=torch.float64)[:, None]
    cosines = (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).mT
    weights = torch.log1p(torch.exp(math.log(DIM) * count.log() * cosines)).tril()
    weights = weights / weights.sum(-1, keepdim=True)
    if power is None:
        return weights
    offset = torch.ones(tokens, 1, dtype=torch.float64)
    offset[:3] = 0
    weights = torch.relu(weights * count - offset) ** power
    return weights / weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("power", [None, 1, 3, 15])
def test_weights_are_those_of_the_formula(power):
    q, k, _ = random_head(40)
    q, k = (rotated(x, torch.arange(40)) for x in (q, k))
    torch.testing.assert_close(shares(Lssa(power=power), q, k), formula(q, k, power), rtol=0, atol=1e-12)


def test_rows_sum_to_one_and_sharpen_with_the_power():
    q, k, _ = random_head(64)
    entropies = []
    for power in (None, 1, 3, 15):
        found = shares(Lssa(power=power), q, k)
        torch.testing.assert_close(found.sum(-1), torch.ones(64, dtype=torch.float64))
        assert not found.triu(1).any()
        entropies.append(float(torch.special.entr(found)[8:].sum(-1).mean()))
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[-1] < 0.5 * entropies[0]


def test_high_powers_stay_numbers_in_half_precision():
    generator = torch.Generator().manual_seed(0)
    model = tiny_model(max_position_embeddings=64).half()
    with torch.no_grad(), longreach.apply(model, Lssa(power=15)):
        assert model(random_ids(1, 64)).logits.isfinite().all()
    key = torch.randn(1, 1, 4096, DIM, generator=generator)
    # One key out of 4096 draws all: its weight times the number of keys, to the power of 64, would be infinite.
    sharp = Lssa(power=64)._shares(8 * key[:, :, -1:], key, 4095)
    assert sharp.isfinite().all()
    torch.testing.assert_close(sharp.sum(-1), torch.ones(1, 1, 1))


def test_keys_that_all_weigh_the_same_give_nothing():
    same = torch.ones(1, 1, 6, DIM, requires_grad=True)
    found = Lssa(power=3)._shares(same, same, 0)
    torch.testing.assert_close(found[0, 0, :3].sum(-1), torch.ones(3))
    assert not found[0, 0, 3:].any()
    (gradient,) = torch.autograd.grad(found.square().sum(), same)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("other", "says"), [("log_n", "it would be lost"), ("ntk_attention", "queries as they are weigh it")])
def test_what_goes_by_the_length_of_queries_is_refused(other, says):
    model = longreach.equip(tiny_model(), other)
    with pytest.raises(UnsupportedError, match=says), longreach.apply(model, f"lssa+{other}"):
        pass
