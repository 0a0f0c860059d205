"""NTK-Attention: a prefix of infinite length, as one matrix and one vector for each head; the model itself is not trained.

Paper: Toward Infinite-Long Prefix in Transformer, 2024, arXiv:2406.14036
Cost: one product with a matrix of head_dim x head_dim a head and token, whatever the prefix would be long; head_dim^2 + head_dim weights a
head.   Limits: its weights have to be trained; it says what a model should do, and reaches no further by itself.
Differs from the paper: training begins at a prefix that weighs next to nothing, so that the model is what it was; the official code begins
at random numbers. The prefix is seen by rotated queries, as in the code.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import elu

from longreach.attention.base import Prefixes
from longreach.core.bands import LayerContext
from longreach.core.method import Claim, MethodInfo

_FIRST_MASS = 1e-3  # of each feature before training; the exponentials of a text's logits are about 1


@dataclass(frozen=True, kw_only=True)
class NtkAttention(Prefixes):
    """Has no settings."""

    info: ClassVar = MethodInfo(
        title="Toward Infinite-Long Prefix in Transformer",
        paper="arXiv:2406.14036",
        training_free=False,
        claims=(
            Claim(
                text="a frozen model learns a task from head_dim^2 + head_dim weights a head, as well as with LoRA",
                metric="scratch_prefix_gain",
                condition="trained",
                at_least=0.0,
            ),
        ),
    )

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`total` [H, D, D] (Z: the sum of features times values) and `mass` [H, D] (k: the sum of features)."""
        heads, size = layer.num_heads, layer.head_dim
        return {"total": torch.zeros(heads, size, size), "mass": torch.full((heads, size), _FIRST_MASS)}

    def prefix(self, q: Tensor, layer: LayerContext) -> tuple[Tensor, Tensor]:
        """(phi(q) Z, phi(q) |k|)."""
        features = phi(q.float())
        total, mass = layer.weights["ntk_attention.total"].float(), layer.weights["ntk_attention.mass"].float().abs()
        return features @ total, (features @ mass[..., None])[..., 0]


def phi(x: Tensor) -> Tensor:
    """Features of queries [..., D]: 1 + elu(x / D^(1/4))."""
    return 1 + elu(x / x.shape[-1] ** 0.25)


METHOD = NtkAttention
EXAMPLES = (NtkAttention(),)
NEUTRAL = ()
BAD = ()
