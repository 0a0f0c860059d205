"""FoPE: every pair of dimensions is turned by a sum over frequencies instead of one, and frequencies too slow to have turned are 0.

Paper: Fourier Position Embedding: Enhancing Attention's Periodic Extension for Length Generalization, 2024, arXiv:2412.17739
Cost: rotation by the engine instead of the model.   Limits: a model has to be trained under it; logits depend on more than distances.
Differs from the paper: a pair without frequency is left as it is; the official code gives it cos = sin = 1, which doubles its logits, which
the model can learn as well. Heads that share keys share their coefficients. One frequency at least is 0.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Fope(PositionsMethod):
    """Args: gain: of the random coefficients beside a pair's own frequency. seed: of them; a model keeps the one it was trained with."""

    info: ClassVar = MethodInfo(
        title="Fourier Position Embedding: Enhancing Attention's Periodic Extension for Length Generalization",
        paper="arXiv:2412.17739",
        training_free=False,
        changes_positions=True,
        per_head=True,
        claims=(
            Claim(
                text="trained on 512 tokens, perplexity beyond is lower than that of RoPE",
                metric="scratch_rise_8x_below_rope",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    gain: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "gain", "seed")

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """The model's own, but 0 below one turn in the trained window; [num_heads, dim / 2]."""
        kept = rope.inv_freq().clone()
        kept[self._kept(rope) :] = 0
        return kept.expand(rope.num_heads, -1), rope.attention_factor

    def mixture(self, rope: Rope) -> tuple[Tensor, Tensor]:
        """For the first quarter of the dimensions in pairs: 1 at every so many frequencies, and random numbers everywhere."""
        pairs, kept = rope.dim // 2, self._kept(rope)
        turned = min(kept, max(1, rope.dim // 4))
        generator = torch.Generator().manual_seed(self.seed)
        std = self.gain * math.sqrt(2 / (turned * (kept + rope.num_heads)))  # xavier's, of a tensor [heads, kept, turned]
        found = []
        for of_cos in (False, True):
            coefficients = torch.randn(rope.num_heads, kept, turned, generator=generator) * std
            step = math.ceil(kept / turned)
            for column, row in enumerate(range(0, min(kept, turned * step), step)):
                coefficients[:, row, column] += 1
            whole = torch.zeros(rope.num_heads, pairs, pairs)
            whole[:, :kept, :turned] = coefficients
            if of_cos:
                whole[:, -1, turned:] = 1  # cos 0 = 1: these pairs are not turned
            found.append(whole)
        sin, cos = found
        return cos, sin

    def _kept(self, rope: Rope) -> int:
        """How many frequencies turn at least once in the trained window; one fewer than there are, at most."""
        turns = int((rope.inv_freq() >= 2 * math.pi / rope.trained_window).sum())
        return max(1, min(turns, rope.dim // 2 - 1))


METHOD = Fope
EXAMPLES = (Fope(), Fope(gain=1, seed=3))
NEUTRAL = ()
BAD = ({"gain": -1}, {"seed": -1})
