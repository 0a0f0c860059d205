"""Rotary embeddings to compute frequencies for, and transformers' own computation of them."""

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.positions.base import Rope

# Llama 1, Llama 3 (without its scaling), Mistral, a tiny model.
ROPES = (
    Rope(theta=10_000.0, dim=128, trained_window=2048),
    Rope(theta=500_000.0, dim=128, trained_window=8192),
    Rope(theta=1_000_000.0, dim=96, trained_window=32768),
    Rope(theta=10_000.0, dim=16, trained_window=64),
)


def in_transformers(rope, rope_type, seq_len=None, **settings):
    """(frequencies in float64, factor on cos and sin) by transformers' own function for a rope type."""
    config = LlamaConfig(
        head_dim=rope.dim,
        max_position_embeddings=rope.trained_window,
        rope_parameters={"rope_type": rope_type, "rope_theta": rope.theta, **settings},
    )
    inv_freq, factor = ROPE_INIT_FUNCTIONS[rope_type](config, "cpu", seq_len=seq_len)
    return inv_freq.double(), factor


def assert_close(ours, wanted):
    """Relative difference of at most 1e-6 (float32 has 6e-8); `wanted` may be a list of floats."""
    torch.testing.assert_close(ours.double(), torch.as_tensor(wanted, dtype=torch.float64), rtol=1e-6, atol=0)
