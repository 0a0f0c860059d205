"""One attention head in float64, with rotary positions, small enough to write methods down a second time."""

import torch

DIM = 8
_FREQUENCIES = 10_000.0 ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)


def random_head(length, seed=0):
    """q, k, v [T, D]: sharp, so that every wrong position shows."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, length, DIM, generator=generator, dtype=torch.float64)
    return 3 * q, 3 * k, v


def rotated(x, positions):
    """x [..., D] turned to `positions` [...] (whole numbers or not): pair i by position times frequency i."""
    turn = torch.polar(torch.ones(()).double(), torch.as_tensor(positions).double()[..., None] * _FREQUENCIES)
    pairs = torch.complex(x[..., : DIM // 2], x[..., DIM // 2 :]) * turn
    return torch.cat([pairs.real, pairs.imag], -1)


def attention(logits, v):
    """Softmax attention of logits [T, S], scaled by 1 / sqrt(D)."""
    return (logits / DIM**0.5).softmax(-1) @ v


def by_reference(method, q, k, v):
    """Attention as the method's `reference` defines it, pair by pair."""
    i, j = torch.arange(len(q))[:, None], torch.arange(len(k))[None]
    relative, visible = method.reference(i, j)
    relative = relative.expand(len(q), len(k))
    logits = (rotated(q[:, None].expand(-1, len(k), -1), relative) * k).sum(-1)
    return attention(logits.masked_fill(~(visible & (j <= i)), float("-inf")), v)


def assert_same(method, wanted, q, k, v):
    """The reference gives the attention outputs `wanted`, and these are not those of plain attention."""
    ours = by_reference(method, q, k, v)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-12)
    positions = torch.arange(len(q))
    plain = rotated(q, positions) @ rotated(k, positions).mT
    plain = attention(plain.masked_fill(positions[None] > positions[:, None], float("-inf")), v)
    assert (plain - wanted).abs().max() > 1e-3
