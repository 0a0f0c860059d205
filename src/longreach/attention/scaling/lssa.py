"""LSSA: softplus in place of the exponential, on cosines times the logarithm of the number of keys; a power of what is above the mean.

Paper: Length Scaled Softplus Attention with Re-weighting, 2025, arXiv:2501.13428
Cost: weights are computed without a fused kernel, which needs the memory of 128 rows of them, in training of all; the cache of the whole
text.   Limits: a model has to be trained under it.
Differs from the paper: a model's own scale and soft cap of logits have no part, for logits are cosines times log(head size) log(keys). Its
learned sinks, where it has some, take weight as they do beside a softmax whose log-sum-exp is 0. A query whose keys all weigh the same, so
that none is above their mean by more than rounding, gives 0.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Computed, LayerContext, QueryRun
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

_ROWS = 128  # queries whose weights are computed at once
_EXACT = 3  # the highest power that float32 bears
_NOISE = 32  # roundings of a number near 1: what is above the mean by less is not above it
_WHOLE = 3  # first queries, from whose weights no mean is taken off


@dataclass(frozen=True, kw_only=True)
class Lssa(Places):
    """Args: power: of the weights above their mean (>= 1; paper: 15 for long texts, 3 for short ones). None leaves weights as they are."""

    info: ClassVar = MethodInfo(
        title="Length Scaled Softplus Attention with Re-weighting",
        paper="arXiv:2501.13428",
        training_free=False,
        claims=(
            Claim(
                text="inside the training length the loss is that of softmax attention (3.19, GPT-2 124M with RoPE at 1024 tokens)",
                metric="costs_inside_above_full",
                condition="trained",
                at_most=0.02,
            ),
            Claim(
                text="at 8 times the training length the loss is 3.32, at 3.19 inside it, where softmax attention rises to 6.28",
                metric="scratch_rise_8x",
                condition="trained",
                at_most=0.13,
            ),
        ),
    )
    power: int | None = 15

    def __post_init__(self) -> None:
        at_least(self, 1, "power")

    @property
    def rounds(self) -> bool:
        """Whether the checks need float64: a high power of a weight that is hardly above the mean is mostly rounding in float32."""
        return self.power is not None and self.power > _EXACT

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """All keys, with weights of its own."""
        return (Computed(self, normalised=True),)

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many queries at a time."""
        exact = torch.promote_types(run.q.dtype, torch.float32)
        for row in range(0, run.q.shape[2], _ROWS):
            rows = slice(row, min(row + _ROWS, run.q.shape[2]))
            end = run.first + rows.stop
            q, k, v = run.q[:, :, rows], run.keys[:, :, :end], run.values[:, :, :end]
            # A power of 15 makes 15 times of what is rounded.
            with torch.autocast(q.device.type, enabled=False):
                shares = self._shares(q.to(exact), k.to(exact), run.first + row)
                out = (shares.to(v.dtype).unflatten(1, (v.shape[1], -1)).flatten(2, 3) @ v).view(*q.shape[:3], -1)
            yield rows, out, shares.new_zeros(shares.shape[:3])

    def _shares(self, q: Tensor, k: Tensor, first: int) -> Tensor:
        """The weights [B, H, n, S] of queries q [B, H, n, D], the first of which has the index `first`, over keys k [B, K, S, D]."""
        index = torch.arange(first, first + q.shape[2], device=q.device)[:, None]
        seen = torch.arange(k.shape[2], device=q.device) <= index
        count = (index + 1).to(q.dtype)
        cosines = normalize(q, dim=-1).unflatten(1, (k.shape[1], -1)).flatten(2, 3) @ normalize(k, dim=-1).mT
        logits = cosines.view(*q.shape[:3], -1) * (count.log() * math.log(q.shape[3]))
        shares = normalize(softplus(logits) * seen, p=1, dim=-1)
        if self.power is None:
            return shares
        number = torch.finfo(q.dtype)
        above = shares * count - (index >= _WHOLE).to(q.dtype)
        above = above * (above > _NOISE * number.eps)
        # Over their largest, which the last division takes out again, they stay numbers under any power.
        highest = above.detach().amax(-1, keepdim=True)
        return normalize((above / highest.clamp(min=number.tiny)) ** self.power, p=1, dim=-1)

    def keys_read(self, i: Tensor) -> Tensor:
        """All of them."""
        return i + 1

    def masses(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Query by query."""
        padding, dim = int((j < 0).sum()), vectors.q.shape[-1]
        q, k = (vectors.rotated(x, i[:, 0]) for x in (vectors.q, vectors.k))
        q, k = (x / x.norm(dim=-1, keepdim=True) for x in (q, k))
        rows = [torch.zeros_like(q[:, :, 0]) for _ in range(padding)]
        for query in range(padding, j.shape[-1]):
            count = query - padding + 1
            logits = math.log(dim) * math.log(count) * (k[:, padding : query + 1] @ q[:, query, :, None])[..., 0]
            weights = (1 + logits.exp()).log()
            weights = weights / weights.sum(-1, keepdim=True)
            if self.power is not None:
                above = (weights * count - (0 if count <= _WHOLE else 1)).clamp(min=0) ** self.power
                weights = above / above.sum(-1, keepdim=True)
            rows.append(torch.nn.functional.pad(weights, (padding, j.shape[-1] - query - 1)))
        return torch.stack(rows, 1)


METHOD = Lssa
EXAMPLES = (Lssa(power=3), Lssa(power=None), Lssa())
NEUTRAL = ()
BAD = ({"power": 0},)
