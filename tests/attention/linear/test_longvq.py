"""Attention over quantised keys, by arXiv:2404.11163 and arXiv:2309.16354."""

from dataclasses import replace

import pytest
import torch

import longreach
from longreach.attention.linear import longvq
from longreach.attention.linear.longvq import LongVq
from longreach.engine.engine import follow
from longreach.engine.weights import own_weights
from longreach.testing.conformance.base import cached_logits, logits
from longreach.testing.models import random_ids, tiny_model
from tests.attention.linear.one_layer import DIM, GROUPS, HEADS, definition, layer_of, random_text, read

METHOD, LENGTH = LongVq(num_codes=5, window_size=6), 40


def normal(x):
    return torch.nn.functional.layer_norm(x, (DIM,), eps=1e-6)


def biased(layer):
    """The layer with biases that show."""
    bias = torch.randn(layer.weights["longvq.bias"].shape, generator=torch.Generator().manual_seed(2)).double()
    return replace(layer, weights=dict(layer.weights) | {"longvq.bias": bias})


def by_definition(method, layer, q, k, v):
    i, j, vectors = definition(method, layer, q, k, v)
    masses = method.masses(i, j, vectors) * (j <= i)
    return masses @ vectors.v / masses.sum(-1, keepdim=True), masses.sum(-1).log()


def test_it_is_softmax_attention_over_quantised_keys_with_a_bias_near_by():
    layer, (q, k, v) = biased(layer_of(METHOD)), random_text(LENGTH)
    left, codes, bias = (layer.weights[f"longvq.{name}"] for name in ("rate", "codebook", "bias"))
    wanted, used = torch.zeros(HEADS, LENGTH, DIM).double(), set()
    for head in range(HEADS):
        group = head // (HEADS // GROUPS)
        keys = []
        for t in range(LENGTH):
            faded = sum(torch.sigmoid(left[group]) ** (t - place) * k[0, group, place] for place in range(t + 1))
            nearest = torch.cdist(normal(faded)[None], codes[group])[0].argmin()
            used.add((group, int(nearest)))
            keys.append(codes[group, nearest])
        for t in range(LENGTH):
            near = torch.tensor([bias[head, t - place] if t - place < 6 else 0.0 for place in range(t + 1)])
            weights = (torch.stack(keys[: t + 1]) @ normal(q[0, head, t]) / DIM**0.5 + near).softmax(0)
            wanted[head, t] = weights @ v[0, group, : t + 1]
    assert len(used) > 6
    torch.testing.assert_close(by_definition(METHOD, layer, q, k, v)[0], wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(read(METHOD, layer, q, k, v)[0][0], wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("together", [1, 2, 100])
def test_blocks_may_be_computed_a_few_at_a_time(monkeypatch, together):
    layer, (q, k, v) = biased(layer_of(METHOD)), random_text(LENGTH)
    wanted, lse = by_definition(METHOD, layer, q, k, v)
    monkeypatch.setattr(longvq, "at_once", lambda _: together)
    for first in (0, 1, 6, 11, 12, 29, LENGTH - 1):  # what comes before is not known
        out, weight = read(METHOD, layer, q[:, :, first:], k, v, first)
        torch.testing.assert_close(out[0], wanted[:, first:], rtol=0, atol=1e-10)
        torch.testing.assert_close(weight[0], lse[:, first:], rtol=0, atol=1e-10)


def test_what_is_kept_hangs_on_the_tokens_alone():
    layer, (q, k, v) = layer_of(METHOD), (x.float() for x in random_text(LENGTH, rows=2))
    layer = replace(layer, weights={name: value.float() for name, value in layer.weights.items()})
    memos = []
    for sizes in ((37,), (5, 1, 6, 13, 12), [1] * 37):
        memo, end = {}, 0
        for size in sizes:
            begin, end = end, end + size
            read(METHOD, layer, q[:, :, begin:end], k[:, :, :end], v[:, :, :end], begin, memo)
        memos.append(memo["longvq"])
    for memo in memos:
        assert (memo.tokens, memo.blocks) == (37, 5)
        for name in ("faded", "counts", "sums", "codes", "near"):
            assert torch.equal(getattr(memo, name), getattr(memos[0], name)), name
    assert memos[0].counts.sum(-1).tolist() == [[30.0] * GROUPS] * 2


def test_a_token_costs_the_same_however_long_the_text():
    layer, (q, k, v) = biased(layer_of(METHOD)), random_text(2000)
    wanted, memo = by_definition(METHOD, layer, q, k, v)[0], {}
    read(METHOD, layer, q[:, :, :1990], k[:, :, :1990], v[:, :, :1990], 0, memo)
    k[:, :, : 1990 - 12] = torch.nan  # blocks that are summed up are not looked at
    v[:, :, : 1990 - 12] = torch.nan
    for t in range(1990, 2000):
        out, _ = read(METHOD, layer, q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], t, memo)
        torch.testing.assert_close(out[0, :, 0], wanted[:, t], rtol=0, atol=1e-9)
        assert memo["longvq"].near.shape[2] < 12
        assert memo["longvq"].sums.shape == (1, GROUPS, 5, DIM)


def test_keys_get_gradients_from_their_block_and_the_one_after():
    layer, (q, k, v) = layer_of(METHOD), random_text(LENGTH)
    forgets = layer.weights["longvq.rate"] * 0 - 50  # so that keys do not reach into those after them
    layer = replace(layer, weights=dict(layer.weights) | {"longvq.rate": forgets})
    k.requires_grad_()
    out, _ = read(METHOD, layer, q, k, v)
    gradient = torch.autograd.grad(out[0, :, 25].sum(), k)[0][0].abs().amax((0, 2)) > 1e-12
    assert gradient.nonzero()[:, 0].tolist() == list(range(18, 26))


@pytest.mark.parametrize("count", [1, 3, 4, 11, 12])
def test_keys_fade_as_one_after_the_other(count):
    x, left = torch.randn(2, 3, count, DIM).double(), torch.rand(3, DIM).double()
    before = torch.randn(2, 3, DIM).double()
    wanted, y, ends = [], before, [before]
    for t in range(count):
        y = x[:, :, t] + left * y
        wanted.append(y)
        ends += [y] if t % 4 == 3 else []
    ours, found = longvq._faded(x, left, before, 4)
    torch.testing.assert_close(ours, torch.stack(wanted, 2))
    torch.testing.assert_close(found, ends)


def test_codes_move_to_the_average_of_what_is_nearest_and_idle_ones_to_keys():
    generator = torch.Generator().manual_seed(0)
    method, old = LongVq(num_codes=4, decay=0.9), torch.randn(1, 4, DIM, generator=generator)
    sums, spare = torch.randn(2, 1, 4, DIM, generator=generator)
    mass, counts = torch.tensor([[2.0, 5.0, 3.0, 0.01]]), torch.tensor([[4.0, 1.0, 0.0, 0.0]])
    weights = {"codebook": old, "mass": mass, "sums": sums, "counts": counts, "spare": spare}
    weights = {name: value.clone() for name, value in weights.items()}
    layer = replace(layer_of(method), weights={f"longvq.{name}": value for name, value in weights.items()})
    method.follow(layer)
    wanted = (0.9 * mass[..., None] * old + 0.1 * sums) / (0.9 * mass + 0.1 * counts)[..., None]
    torch.testing.assert_close(weights["codebook"][:, :2], wanted[:, :2])
    assert torch.equal(weights["codebook"][0, 2], old[0, 2]), "nothing is nearest to it in this step"
    assert torch.equal(weights["codebook"][0, 3], spare[0, 3]), "it has stood for next to nothing for long"
    total = 0.9 * mass + 0.1 * counts
    torch.testing.assert_close(weights["mass"], torch.cat([total[:, :3], total.mean(-1, keepdim=True) / 10], 1))
    assert not any(weights[name].any() for name in ("sums", "counts", "spare"))
    before = {name: value.clone() for name, value in weights.items()}
    method.follow(layer)
    assert all(torch.equal(weights[name], value) for name, value in before.items()), "nothing was read"


def test_the_first_step_makes_codes_of_keys():
    method = LongVq(num_codes=50, window_size=8)
    layer, (q, k, v) = layer_of(method), random_text(LENGTH)
    read(method, layer, q, k, v, training=True)
    assert layer.weights["longvq.counts"].sum(-1).tolist() == [LENGTH] * GROUPS
    method.follow(layer)
    faded, _ = longvq._faded(k, layer.weights["longvq.rate"].sigmoid(), torch.zeros(1, GROUPS, DIM).double(), LENGTH)
    apart = torch.cdist(layer.weights["longvq.codebook"], normal(faded)[0]).amin(-1)
    assert (apart < 1e-6).sum() > 50, "of 100 codes, those that were nearest to no key or to one are keys"
    assert apart.isfinite().all()


def test_what_is_read_is_noted_once_and_in_training_alone():
    model, ids = longreach.equip(tiny_model(), METHOD), random_ids(2, 40)
    groups = model.config.num_key_value_heads
    counts = {name: weight for name, weight in own_weights(model).items() if name.endswith("counts")}
    assert len(counts) == model.config.num_hidden_layers
    with longreach.apply(model, METHOD):
        logits(model, ids)
        assert not any(weight.any() for weight in counts.values())
        model.train()
        model(ids, use_cache=False)
        for weight in counts.values():
            assert weight.sum(-1).tolist() == [2 * 40] * groups
        follow(model)
        assert not any(weight.any() for weight in counts.values())
        layer, (q, k, v) = layer_of(METHOD), random_text(LENGTH)
        read(METHOD, layer, q[:, :, 30:], k, v, 30, training=True)  # what came before was noted when it came
        assert layer.weights["longvq.counts"].sum(-1).tolist() == [10] * GROUPS


def test_half_precision_gives_numbers():
    torch.manual_seed(0)
    model, ids = longreach.equip(tiny_model(), METHOD).bfloat16(), random_ids(1, 40)
    with longreach.apply(model, METHOD):
        found = logits(model, ids)
        assert found.isfinite().all()
        assert (cached_logits(model, ids, (20, *[1] * 20)) - found).abs().median() < 0.1


def test_keys_that_are_read_are_counted():
    read = METHOD.keys_read(torch.arange(40))
    assert read[:13].tolist() == [*range(6, 18), 7 + 10], "and from the third block on the codes for the query"
    assert int(read.max()) == 12 + 10
