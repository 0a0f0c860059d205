"""RoPE x ALiBi: rotary positions, and logits that fall with the harmonic series of the distance, at ALiBi's slope for each head.

Paper: The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI, 2024, arXiv:2410.18441
Cost: a bias for each tile of logits.   Limits: a model has to be trained under it to gain from it; weights fall
so slowly that their sum has no bound (see longreach reach).
Differs from the paper: its abstract says that RoPE and ALiBi are combined as factors with a harmonic series, and no more was at hand; so a
weight is that of RoPE times exp(-slope * (1 + 1/2 + ... + 1/distance)), about distance^-slope.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Biases
from longreach.attention.bias.alibi import alibi_slopes
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo


@dataclass(frozen=True, kw_only=True)
class RopeAlibi(Biases):
    """Args: strength: factor on all slopes (> 0)."""

    info: ClassVar = MethodInfo(
        title="The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI",
        paper="arXiv:2410.18441",
        training_free=False,
        claims=(
            Claim(
                text="proposed as a combination of RoPE and ALiBi; the abstract states no result",
                metric="scratch_rise_8x_below_rope",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    strength: float = 1

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise SpecError(f"rope_alibi: strength={self.strength:g} must be above 0 and finite")

    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor:
        """-strength * slope * H(distance), where H(n) = 1 + 1/2 + ... + 1/n, between whole numbers its smooth continuation."""
        slopes = torch.tensor(alibi_slopes(layer.num_heads), device=distance.device) * self.strength
        return -slopes.view(-1, *[1] * distance.ndim) * harmonic(distance.float())


def harmonic(n: Tensor) -> Tensor:
    """H(n) = digamma(n + 1) - digamma(1), for n >= 0."""
    return torch.digamma(n + 1) - torch.digamma(torch.ones((), device=n.device))


METHOD = RopeAlibi
EXAMPLES = (RopeAlibi(), RopeAlibi(strength=4))
NEUTRAL = ()
BAD = ({"strength": 0},)
