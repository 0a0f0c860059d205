"""Attention over pieces against softmax attention written out in float64: values and gradients."""

import pytest
import torch

from longreach.engine._fused import Merge, attend

SCALE = 0.3


def random_qkv(*, batch=2, heads=4, kv_heads=2, queries=7, keys=9, dim=8, value_dim=None, seed=0):
    """q [B, H, T, D], k [B, K, S, D], v [B, K, S, Dv] in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (heads, queries, dim), (kv_heads, keys, dim), (kv_heads, keys, value_dim or dim)
    return [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) * 2 for shape in shapes]


def naive(q, k, v, *, seen=None, softcap=None, sinks=None):
    """(out [B, H, T, Dv], lse [B, H, T]) in the dtype of q; seen: bool, broadcast to [B, H, T, S]."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    logits = q @ k.mT * SCALE
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    seen = torch.ones_like(logits, dtype=torch.bool) if seen is None else seen.expand_as(logits)
    weights = torch.where(seen, logits.exp(), 0.0)
    total = weights.sum(-1)
    below = total if sinks is None else total + sinks[:, None].exp()
    return weights @ v / below.clamp(min=1e-300)[..., None], total.log()


def assert_same(ours, wanted, *, tolerance=2e-5):
    """Equal up to float32, -inf where it is wanted."""
    ours, wanted = ours.detach().double(), wanted.detach().double()
    nothing = wanted == float("-inf")
    assert torch.equal(ours == float("-inf"), nothing)
    torch.testing.assert_close(ours.masked_fill(nothing, 0), wanted.masked_fill(nothing, 0), rtol=tolerance, atol=tolerance)


def random_mask(batch, heads, queries, keys, seed=1):
    """bool [B, H, T, S] with a row that sees nothing, in one batch row and head only."""
    mask = torch.rand(batch, heads, queries, keys, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0, 0, 2] = False
    return mask


CASES = {
    "multi-head": ({"kv_heads": 4}, {}),
    "grouped": ({}, {}),
    "one query": ({"queries": 1}, {}),
    "one query, multi-head": ({"queries": 1, "kv_heads": 4}, {}),
    "causal": ({"keys": 7}, {"causal": True}),
    "causal, longer than a block of rows": ({"queries": 600, "keys": 600, "batch": 1, "heads": 2, "kv_heads": 1}, {"causal": True}),
    "mask": ({}, {"mask": True}),
    "mask, one query": ({"queries": 1}, {"mask": True}),
    "mask, longer than a block of rows": ({"queries": 300}, {"mask": True}),
    "mask, some queries": ({"queries": 40}, {"mask": True}),
    "mask by head": ({}, {"mask": "by head"}),
    "mask by head, one query": ({"queries": 1}, {"mask": "by head"}),
    "mask by head, many queries": ({"queries": 70}, {"mask": "by head"}),
    "mask by head, multi-head": ({"kv_heads": 4}, {"mask": "by head"}),
    "soft cap": ({}, {"softcap": 1.5}),
    "soft cap, causal": ({"keys": 7}, {"softcap": 1.5, "causal": True}),
    "soft cap, causal, longer than a block of rows": ({"queries": 300, "keys": 300, "batch": 1}, {"softcap": 1.5, "causal": True}),
    "soft cap, mask, longer than a block of rows": ({"queries": 300}, {"softcap": 1.5, "mask": True}),
    "values of another size": ({"value_dim": 5}, {}),
    "wider values": ({"value_dim": 12}, {}),
    "wider values, many queries": ({"value_dim": 12, "queries": 70}, {}),
    "wider values, many queries, mask": ({"value_dim": 12, "queries": 70}, {"mask": True}),
    "wider values, many queries, soft cap": ({"value_dim": 12, "queries": 70}, {"softcap": 1.5}),
}


def options_of(case):
    """(q, k, v in float64, options for attend, options for naive)."""
    sizes, options = CASES[case]
    q, k, v = random_qkv(**sizes)
    given, plain = dict(options), {"softcap": options.get("softcap")}
    if options.get("mask"):
        heads = q.shape[1] if options["mask"] == "by head" else 1
        given["mask"] = plain["seen"] = random_mask(q.shape[0], heads, max(3, q.shape[2]), k.shape[2])[:, :, -q.shape[2] :]
    if options.get("causal"):
        plain["seen"] = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    return q, k, v, given, plain


@pytest.mark.parametrize("case", CASES)
def test_values_are_those_of_softmax(case):
    q, k, v, given, plain = options_of(case)
    with torch.no_grad():
        out, lse = attend(q.float(), k.float(), v.float(), scale=SCALE, **given)
    wanted, wanted_lse = naive(q, k, v, **plain)
    assert_same(out, wanted)
    assert_same(lse, wanted_lse)
    assert lse.dtype == torch.float32


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_softmax(case):
    q, k, v, given, plain = options_of(case)
    doubles = [tensor.requires_grad_() for tensor in (q, k, v)]
    floats = [tensor.detach().float().requires_grad_() for tensor in doubles]
    gradients = []
    for (out, lse), inputs in ((attend(*floats, scale=SCALE, **given), floats), (naive(*doubles, **plain), doubles)):
        direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out.dtype)
        lse = lse.masked_fill(lse == float("-inf"), 0.0)
        gradients.append(torch.autograd.grad((out * direction).sum() + lse.sin().sum(), inputs))
    for ours, wanted in zip(*gradients, strict=True):
        assert_same(ours, wanted, tolerance=1e-4)


@pytest.mark.parametrize("case", ["grouped", "one query", "causal", "mask", "soft cap"])
def test_bfloat16_is_as_good_as_bfloat16_can_be(case):
    q, k, v, given, plain = options_of(case)
    q, k, v = q.bfloat16(), k.bfloat16(), v.bfloat16()
    with torch.no_grad():
        out, lse = attend(q, k, v, scale=SCALE, **given)
    assert out.dtype == torch.bfloat16
    wanted, wanted_lse = naive(q.double(), k.double(), v.double(), **plain)
    assert_same(out, wanted, tolerance=3e-2)
    assert_same(lse, wanted_lse, tolerance=3e-2)


# --- pieces under one softmax


def merged(q, k, v, pieces, *, sinks=None):
    """Merge of (rows, keys, mask or None) pieces."""
    merge, total = Merge(), q.shape[2]
    for rows, keys, mask in pieces:
        out, lse = attend(q[:, :, rows], k[:, :, keys], v[:, :, keys], scale=SCALE, mask=mask)
        merge.add(out, lse, rows, total)
    return merge.result(sinks, q)


def seen_in(pieces, batch, queries, keys):
    """bool [B, 1, T, S] of all pairs in the pieces."""
    seen = torch.zeros(batch, 1, queries, keys, dtype=torch.bool)
    for rows, part, mask in pieces:
        seen[:, :, rows, part] |= torch.ones_like(seen[:, :, rows, part]) if mask is None else mask
    return seen


ALL = slice(0, 7)
PIECES = {
    "one": [(ALL, slice(0, 9), None)],
    "keys in two": [(ALL, slice(0, 4), None), (ALL, slice(4, 9), None)],
    "whole rows first": [(ALL, slice(0, 4), None), (slice(2, 5), slice(4, 6), None), (slice(4, 7), slice(6, 9), None)],
    "part of the rows first": [(slice(3, 7), slice(2, 5), None), (slice(0, 4), slice(0, 2), None), (ALL, slice(5, 9), None)],
    "rows that see nothing": [(slice(0, 2), slice(0, 3), None), (slice(4, 6), slice(1, 9), None)],
    "masks that leave nothing": [
        (ALL, slice(0, 5), random_mask(2, 1, 7, 5)),
        (slice(2, 4), slice(5, 9), random_mask(2, 1, 7, 4)[:, :, 2:4]),
    ],
}


@pytest.mark.parametrize("sinks", [None, (0.5, -1.0, 2.0, 0.0)])
@pytest.mark.parametrize("pieces", PIECES)
def test_pieces_share_one_softmax(pieces, sinks):
    q, k, v = random_qkv()
    logits = None if sinks is None else torch.tensor(sinks, dtype=torch.float64)
    wanted, _ = naive(q, k, v, seen=seen_in(PIECES[pieces], 2, 7, 9), sinks=logits)
    with torch.no_grad():
        ours = merged(q.float(), k.float(), v.float(), PIECES[pieces], sinks=None if logits is None else logits.float())
    assert_same(ours, wanted)


@pytest.mark.parametrize("pieces", PIECES)
def test_gradients_go_through_the_merge(pieces):
    doubles = [tensor.requires_grad_() for tensor in (*random_qkv(), torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64))]
    floats = [tensor.detach().float().requires_grad_() for tensor in doubles]
    *qkv, sinks = floats
    ours = merged(*qkv, PIECES[pieces], sinks=sinks)
    *qkv, sinks = doubles
    wanted, _ = naive(*qkv, seen=seen_in(PIECES[pieces], 2, 7, 9), sinks=sinks)
    direction = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for found, right in zip(
        torch.autograd.grad((ours * direction.float()).sum(), floats), torch.autograd.grad((wanted * direction).sum(), doubles), strict=True
    ):
        assert_same(found, right, tolerance=1e-4)


@pytest.mark.parametrize(("queries", "heads"), [(40, 4), (40, 1), (70, 1)])
def test_a_bias_of_another_width_than_the_queries_is_taken_for_what_it_is(queries, heads):
    q, k, v = random_qkv(queries=queries, keys=40)
    bias = torch.randn(1, heads, queries, 40, generator=torch.Generator().manual_seed(1))
    repeated = [x.repeat_interleave(2, 1) for x in (k, v)]
    wanted = (q @ repeated[0].mT * SCALE + bias).softmax(-1) @ repeated[1]
    assert_same(attend(q, k, v, scale=SCALE, bias=bias)[0], wanted, tolerance=1e-10)


def test_nothing_at_all_is_zero():
    q = torch.ones(1, 2, 3, 4)
    assert torch.equal(Merge().result(None, q), torch.zeros_like(q))


@pytest.mark.parametrize("mask", [None, torch.ones(2, 1, 7, 0, dtype=torch.bool)])
def test_no_keys_give_nothing(mask):
    q, k, v = random_qkv(keys=0, value_dim=6)
    out, lse = attend(q, k, v, scale=SCALE, mask=mask)
    assert torch.equal(out, torch.zeros(2, 4, 7, 6, dtype=torch.float64))
    assert bool((lse == float("-inf")).all())
