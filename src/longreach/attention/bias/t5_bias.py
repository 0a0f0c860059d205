"""T5's relative bias: a learned number for each head and bucket of distances, added to logits.

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer, 2019, arXiv:1910.10683, section 2.1
Cost: a bias for each tile of logits; buckets x heads weights for the whole model.   Limits: a model has to be trained under it, without
positions (nope+t5_bias); all keys beyond max_distance are at one distance.
Differs from the paper: logits are scaled as the model scales them (T5 does not divide them by the root of the head size).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Biases
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class T5Bias(Biases):
    """Args: buckets: of distances, half of them one token wide (even, >= 4). max_distance: where the last one begins (> buckets / 2)."""

    info: ClassVar = MethodInfo(
        title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        paper="arXiv:1910.10683",
        training_free=False,
        claims=(
            Claim(
                text="arXiv:2108.12409: extrapolates to about 1.5 times the training length, better than rotary positions",
                metric="scratch_rise_2x_below_rope",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    buckets: int = 32
    max_distance: int = 128

    def __post_init__(self) -> None:
        at_least(self, 4, "buckets")
        if self.buckets % 2 or self.max_distance <= self.buckets // 2:
            raise SpecError(f"t5_bias: buckets={self.buckets} must be even and max_distance={self.max_distance} above half of it")

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`table` [buckets, H], which all layers share."""
        return {"table": torch.randn(self.buckets, layer.num_heads) * layer.hidden_size**-0.5} if layer.first else {}

    def bucket(self, distance: Tensor) -> Tensor:
        """The bucket of each distance: one a token up to half of them, then logarithmic ones."""
        exact = self.buckets // 2
        grows = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (self.buckets - exact)
        far = (exact + grows.long()).clamp(max=self.buckets - 1)
        return torch.where(distance < exact, distance.long(), far)

    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor:
        """The table's row of each distance's bucket."""
        return layer.weights["t5_bias.table"].float()[self.bucket(distance)].movedim(-1, 0)


METHOD = T5Bias
EXAMPLES = (T5Bias(), T5Bias(buckets=8, max_distance=20))
NEUTRAL = ()
BAD = ({"buckets": 3}, {"buckets": 32, "max_distance": 16})
