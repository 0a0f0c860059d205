"""Head temperature: one learned factor on the logits of each head, by which attention that a longer text spreads is sharp again.

Paper: Length Generalization of Causal Transformers without Position Encoding, 2024, arXiv:2404.12224
Cost: one product a query; one weight a head, found by training nothing else on long text.   Limits: made for models without positions
(nope), where spreading is what ends the window; it is the same at every length.
Differs from the paper: a model that has rotary positions can have it, too.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Scales
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo


@dataclass(frozen=True, kw_only=True)
class HeadTemperature(Scales):
    """Args: first: the factor of every head before training (> 0); by itself the uniform scale that the paper compares with."""

    info: ClassVar = MethodInfo(
        title="Length Generalization of Causal Transformers without Position Encoding",
        paper="arXiv:2404.12224",
        training_free=False,
        claims=(
            Claim(
                text="head-based scales take a model without positions from 2k to 18k tokens",
                metric="scratch_tuned_gain_8x",
                condition="trained",
                at_least=0.0,
            ),
        ),
    )
    first: float = 1

    def __post_init__(self) -> None:
        if not 0 < self.first < float("inf"):
            raise SpecError(f"head_temperature: first={self.first:g} must be above 0 and finite")

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`scale` [H]."""
        return {"scale": torch.full((layer.num_heads,), float(self.first))}

    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor:
        """The head's factor, [1, H, T]."""
        return layer.weights["head_temperature.scale"].float()[None, :, None].expand(1, -1, t.shape[-1])


METHOD = HeadTemperature
EXAMPLES = (HeadTemperature(first=2), HeadTemperature(first=0.5))
NEUTRAL = ()
BAD = ({"first": 0},)
