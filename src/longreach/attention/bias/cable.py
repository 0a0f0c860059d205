"""Cable: every token ages what came before it, by an amount that it sets itself for each head; logits fall with the age of the key.

Paper: Context-aware Biases for Length Extrapolation, 2025, arXiv:2503.08067
Cost: a projection to one number a head and token, and a bias for each tile of logits.   Limits: a model has to be trained under it,
without positions (nope+cable).
Differs from the paper: logits are scaled as the model scales them; the official code leaves them unscaled.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import linear, softplus

from longreach.attention.base import Ages
from longreach.core.bands import LayerContext
from longreach.core.method import Claim, MethodInfo

_STD = 0.02  # of the projection before training


@dataclass(frozen=True, kw_only=True)
class Cable(Ages):
    """Has no settings."""

    info: ClassVar = MethodInfo(
        title="Context-aware Biases for Length Extrapolation",
        paper="arXiv:2503.08067",
        training_free=False,
        claims=(
            Claim(
                text="trained on 512 tokens, perplexity at 1024 is below that of one trained on 1024 with sinusoidal positions",
                metric="scratch_rise_8x",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`weight` [H, hidden_size] and `bias` [H]."""
        return {"weight": torch.randn(layer.num_heads, layer.hidden_size) * _STD, "bias": torch.zeros(layer.num_heads)}

    def aging(self, hidden: Tensor, layer: LayerContext) -> Tensor:
        """softplus of a projection of each token."""
        own = layer.weights
        return softplus(linear(hidden, own["cable.weight"], own["cable.bias"]).float()).mT


METHOD = Cable
EXAMPLES = (Cable(),)
NEUTRAL = ()
BAD = ()
