"""LeX against the formulas of its paper."""

import torch

from longreach.attention.bias.lex import Lex
from longreach.core.bands import LayerContext

LAYER = LayerContext(layer_idx=0, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=16, hidden_size=16, trained_window=64)


def xpos(x, positions, power):
    """x [T, 16] in pairs (2i, 2i + 1), turned by n theta_i and multiplied by zeta_i^(power n / 512): the paper's Algorithm 1."""
    out = torch.zeros_like(x)
    for i in range(8):
        theta, zeta = 10_000 ** (-2 * i / 16), (2 * i / 16 + 0.4) / 1.4
        for n, place in enumerate(positions):
            cos, sin = torch.cos(place * theta), torch.sin(place * theta)
            a, b = x[n, 2 * i], x[n, 2 * i + 1]
            out[n, 2 * i], out[n, 2 * i + 1] = (
                torch.stack((a * cos - b * sin, b * cos + a * sin)) * zeta ** (power * place / 512)
            ).unbind()
    return out


def test_fading_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(40, 16, generator=generator, dtype=torch.float64) for _ in range(2))
    places = torch.arange(40, dtype=torch.float64)
    wanted = xpos(q, places, 1) @ xpos(k, places, -1).T
    decay, theta = Lex(block_size=32).decay(8, LAYER).double(), 10_000.0 ** (-torch.arange(8, dtype=torch.float64) / 8)
    for i, j in ((39, 0), (20, 19), (7, 7)):
        turned = torch.complex(q[i, ::2], q[i, 1::2]) * torch.polar(decay ** (i - j), (i - j) * theta)
        ours = (turned * torch.complex(k[j, ::2], k[j, 1::2]).conj()).real.sum()
        assert torch.allclose(ours, wanted[i, j], atol=1e-6)


def test_a_query_sees_its_block_and_the_one_before():
    i, j = torch.arange(12)[:, None], torch.arange(12)
    relative, seen = Lex(block_size=4).reference(i, j)
    assert [int(row.nonzero().min()) for row in seen] == [0] * 8 + [4] * 4
    assert int(relative[seen].max()) == 7
    training = Lex(block_size=6).reference(i, j)[1]
    assert torch.equal(training, j <= i)  # on sequences of two blocks it is plain causal attention
