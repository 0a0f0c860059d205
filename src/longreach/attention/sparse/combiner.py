"""Combiner: a query sees its own segment token by token, and of every segment before it one abstraction, in one softmax.

Paper: Combiner: Full Attention Transformer with Sparse Computation Cost, 2021, arXiv:2107.05768
Cost: a query reads segment + text / segment keys; the cache of the whole text, and a key and a value for each head and segment.
Limits: a model has to be trained under it. Nothing is out of sight, but of what is far away a query weighs whole segments only.
Differs from the paper: of its patterns the fixed one. Queries and keys are pooled as the model turns them, at the positions where they
stand; the official code has positions in the input alone. A model's soft cap holds for what a query sees, not within abstractions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Band, Computed, LayerContext, QueryRun
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

_ROWS = 256  # queries whose masks over the abstractions are made at once


@dataclass(frozen=True, kw_only=True)
class Combiner(Places):
    """Args: segment: tokens (>= 1; paper: the root of the text's length, 128 in its code). pooling: how a segment's keys, and its queries,
    become one.
    """

    info: ClassVar = MethodInfo(
        title="Combiner: Full Attention Transformer with Sparse Computation Cost",
        paper="arXiv:2107.05768",
        training_free=False,
        claims=(
            Claim(
                text="perplexity below that of sparse attention at the same cost",
                metric="costs_inside_above_local",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    segment: int = 128
    pooling: Literal["max", "mean", "sum"] = "max"

    def __post_init__(self) -> None:
        at_least(self, 1, "segment")

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's segment, and abstractions of those before it."""
        return (Band(chunk=self.segment, hi=0), Computed(self, summarizer=self, chunk=self.segment))

    def summarize(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Keys and values of abstractions, one behind the other, [B, H, n, D + D]."""
        repeats = q.shape[1] // k.shape[1]
        keys = self._pooled(k).repeat_interleave(repeats, 1)
        grouped = self._pooled(q).unflatten(1, (-1, repeats)).transpose(2, 3)  # [B, K, n, H / K, D]
        weights = (grouped @ k.mT * scale).to(torch.promote_types(q.dtype, torch.float32)).softmax(-1).to(v.dtype)
        return torch.cat([keys, (weights @ v).transpose(2, 3).flatten(1, 2)], -1)

    def _pooled(self, x: Tensor) -> Tensor:
        """x [..., C, D] as one, [..., D]."""
        if self.pooling == "max":
            return x.amax(-2)
        return x.mean(-2) if self.pooling == "mean" else x.sum(-2)

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many queries at a time, from the second segment on."""
        if run.summaries is None:  # no segment is full
            return
        keys, values = run.summaries.split([run.q.shape[3], run.summaries.shape[3] - run.q.shape[3]], -1)
        for row in range(max(0, self.segment - run.first), run.q.shape[2], _ROWS):
            rows = slice(row, min(row + _ROWS, run.q.shape[2]))
            own = torch.arange(run.first + row, run.first + rows.stop, device=run.q.device) // self.segment
            count = int(own[-1])
            mask = torch.arange(count, device=own.device) < own[:, None]
            yield (rows, *run.attend(run.q[:, :, rows], keys[:, :, :count], values[:, :, :count], mask.expand(len(keys), 1, -1, -1)))

    def keys_read(self, i: Tensor) -> Tensor:
        """Tokens of the segment up to the query, and abstractions."""
        return i % self.segment + 1 + i // self.segment

    def masses(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Token by token: a token before the query's segment weighs its share of the abstraction that it is in."""
        padding = int((j < 0).sum())
        q, k = (vectors.rotated(x, i[:, 0])[:, padding:] for x in (vectors.q, vectors.k))

        def mass(queries: Tensor, keys: Tensor) -> Tensor:
            logits = queries @ keys.mT * vectors.scale
            return (logits if vectors.softcap is None else vectors.softcap * (logits / vectors.softcap).tanh()).exp()

        found = mass(q, k)
        for begin in range(0, q.shape[1] - self.segment, self.segment):
            tokens, behind = slice(begin, begin + self.segment), slice(begin + self.segment, None)
            pool, of = self._pooled(q[:, tokens]), self._pooled(k[:, tokens])
            inside = (k[:, tokens] @ pool[..., None] * vectors.scale).softmax(1).mT
            found = torch.cat([
                found[:, : behind.start],
                torch.cat([found[:, behind, :begin], mass(q[:, behind], of[:, None]) * inside, found[:, behind, behind.start :]], -1),
            ], 1)  # fmt: skip
        return torch.nn.functional.pad(found, (padding, 0, padding, 0))


METHOD = Combiner
EXAMPLES = (Combiner(segment=8), Combiner(segment=5, pooling="mean"), Combiner(segment=3, pooling="sum"))
NEUTRAL = (Combiner(segment=64),)
BAD = ({"segment": 0}, {"segment": 4, "pooling": "middle"})
