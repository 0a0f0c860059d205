"""NoPE: no positions; rotary frequencies are 0, and a model learns order from causal attention alone.

Paper: Length Generalization of Causal Transformers without Position Encoding, 2024, arXiv:2404.12224
Cost: none.   Limits: a model has to be trained under it; one that was trained with positions does not work without. It reads on to about
twice its window, and attention spreads beyond (see head_temperature).
Differs from the paper: nothing. (A model with rotary modules keeps them, at frequencies of 0, and needs no other code.)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.method import Claim, MethodInfo
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Nope(PositionsMethod):
    """Has no settings. Biases (alibi, t5_bias, cable) stack on it."""

    info: ClassVar = MethodInfo(
        title="Length Generalization of Causal Transformers without Position Encoding",
        paper="arXiv:2404.12224",
        training_free=False,
        exportable=True,
        changes_positions=True,
        claims=(
            Claim(
                text="trained on 2k tokens it holds to about 4k, RoPE only to 2k",
                metric="scratch_rise_2x_below_rope",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """[dim / 2] zeros: no angle at any position."""
        return torch.zeros(rope.dim // 2), rope.attention_factor


METHOD = Nope
EXAMPLES = (Nope(),)
NEUTRAL = ()
BAD = ()
