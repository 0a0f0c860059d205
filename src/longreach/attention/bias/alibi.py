"""ALiBi: logits fall linearly with distance, at a slope for each head; models trained so read on beyond their training length.

Paper: Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation, 2021, arXiv:2108.12409
Cost: a bias for each tile of logits.   Limits: a model has to be trained under it, without positions (nope+alibi); far keys weigh next to
nothing, whatever they say.
Differs from the paper: logits are scaled as the model scales them. `factor` divides distances, which arXiv:2310.13017 shows to extend
trained models further.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Biases
from longreach.core.bands import LayerContext
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Alibi(Biases):
    """Args: factor: divides distances (>= 1)."""

    info: ClassVar = MethodInfo(
        title="Train Short, Test Long: Attention with Linear Biases Enables Input Length Extrapolation",
        paper="arXiv:2108.12409",
        training_free=False,
        claims=(
            Claim(
                text="perplexity at twice the training length, and beyond, is not above that inside it",
                metric="scratch_rise_8x",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    factor: float = 1

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def auto_factor(cls, trained_window: int, target: int) -> float:
        """target / trained_window: no distance exceeds the trained ones."""
        return max(1.0, factor_to(target, trained_window))

    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor:
        """-slope * distance / factor."""
        slopes = torch.tensor(alibi_slopes(layer.num_heads), device=distance.device)
        return -slopes.view(-1, *[1] * distance.ndim) * (distance.float() / self.factor)


def alibi_slopes(heads: int) -> list[float]:
    """The slopes 2^(-8/n), 2^(-16/n), ... of n heads; where n is no power of two, those of the power below, then every other one of the
    power above.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    between = [2 ** (-4 * (head + 1) / power) for head in range(0, 2 * power, 2)]
    return slopes + between[: heads - power]


METHOD = Alibi
EXAMPLES = (Alibi(), Alibi(factor=4))
NEUTRAL = ()
BAD = ({"factor": 0.5},)
