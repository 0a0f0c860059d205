"""One layer's reader, run by itself in float64."""

from dataclasses import replace

import torch

from longreach.attention.base import Vectors
from longreach.core.bands import PROBE, QueryRun

HEADS, GROUPS, DIM = 4, 2, 8


def layer_of(method, seed=0, heads=HEADS, groups=GROUPS, dim=DIM):
    """A layer with the method's weights, as they are before training."""
    torch.manual_seed(seed)
    layer = replace(PROBE, num_heads=heads, num_kv_heads=groups, head_dim=dim)
    return replace(layer, weights={f"{method.name()}.{name}": value.double() for name, value in method.weights(layer).items()})


def random_text(length, rows=1):
    """q [B, H, T, D], k and v [B, K, T, D]."""
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(rows, heads, length, DIM, generator=generator).double() for heads in (HEADS, GROUPS, GROUPS))


def read(method, layer, q, k, v, first=0, memo=None, training=False):
    """What queries get, the first of which has the index `first`, and the log-sum-exp of their weights, [B, H, n, D] and [B, H, n]."""
    (view,) = method.bands(layer)
    run = QueryRun(
        q=q, first=first, prompt=0, keys=k, values=v, queries=None, attend=None, attend_chunks=None, training=training,
        memo={} if memo is None else memo,
    )  # fmt: skip
    pieces = [(out, lse) for _, out, lse in view.reader.pieces(run)]
    return tuple(torch.cat(parts, 2) for parts in zip(*pieces, strict=True))


def definition(method, layer, q, k, v):
    """The arguments of a method's definition, of the first row."""
    i, repeats = torch.arange(q.shape[2]), q.shape[1] // k.shape[1]
    k, v = (x[0].repeat_interleave(repeats, 0) for x in (k, v))
    return i[:, None], i[None], Vectors(layer=layer, q=q[0], k=k, v=v, scale=1, prompt=0, rotated=lambda x, _: x)
