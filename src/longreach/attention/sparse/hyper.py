"""HyperAttention: far keys are sorted by a hash, a query sees those that share its hash, and a sample of the others stands for the rest.

Paper: HyperAttention: Long-context Attention in Near-Linear Time, 2023, arXiv:2310.05869
Cost: the cache of the whole text; a query reads its stretch of `exact` tokens and, for each doubling of the text behind it, block_size +
num_samples keys; no training.
Limits: the window of the model is unchanged; it saves time, not memory. What is far away is estimated, so that every token changes a
little, and single facts there are seldom found.
Differs from the paper: every query sees the first block of the text (sink_blocks=0: the paper): the first tokens draw most of the attention
in many models, a sample misses them, and all changes much. No query looks ahead: stretches lie on a grid, and a query finds its place among
the sorted keys by its own hash, where the official code sorts queries, too, and gives the n-th block of them the n-th of keys. Hashes are
ordered so that neighbours differ by one bit, as the paper says; the official code takes the Gray code of a hash for its place, where they
may differ by more. Samples are the same for all heads that share keys. Tokens that are written are read the same way, where the official
code reads everything for them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.attention.sparse._rows import chosen_rows
from longreach.core.bands import Band, Computed, LayerContext, QueryRun
from longreach.core.errors import SpecError
from longreach.core.memory import View
from longreach.core.method import MethodInfo, at_least

_ROWS = 512  # queries whose masks over the samples are made at once


@dataclass(frozen=True, kw_only=True)
class Hyper(Places):
    """Args: exact: tokens of a stretch that is seen whole (paper: 4096). block_size: sorted keys that a query sees together (paper: 256);
    divides exact. num_samples: keys that stand for the others (paper: 256). num_projections: bits of the hash (paper: 7). dense_layers:
    first layers that see everything; the last layer never does. sink_blocks: first blocks of block_size tokens that every query sees
    (paper: 0), exact tokens at most. seed: of projections and samples.
    """

    info: ClassVar = MethodInfo(title="HyperAttention: Long-context Attention in Near-Linear Time", paper="arXiv:2310.05869")
    exact: int = 4096
    block_size: int = 256
    num_samples: int = 256
    num_projections: int = 7
    dense_layers: int = 0
    sink_blocks: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "exact", "block_size", "num_projections")
        at_least(self, 0, "num_samples", "dense_layers", "sink_blocks", "seed")
        if self.exact % self.block_size:
            raise SpecError(f"hyper: exact={self.exact} must be a multiple of block_size={self.block_size}")
        if self._sinks > self.exact:
            most = self.exact // self.block_size
            raise SpecError(f"hyper: sink_blocks={self.sink_blocks} must be at most {most}, exact / block_size")

    @property
    def _sinks(self) -> int:
        """First tokens that every query sees."""
        return self.sink_blocks * self.block_size

    def _dense(self, layer: LayerContext) -> bool:
        return layer.full_layers.index(layer.layer_idx) < min(self.dense_layers, len(layer.full_layers) - 1)

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's own stretch, and what comes before it."""
        if self._dense(layer):
            return (Band(),)
        return (Band(chunk=self.exact, hi=0), Computed(self))

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """For each stretch of exact, 2 exact, 4 exact ... tokens: what the queries of the stretch behind it see of it."""
        first, end, length = run.first, run.first + run.q.shape[2], self.exact
        if self._sinks and end > self.exact:
            rows = slice(max(0, self.exact - first), end - first)
            sinks = slice(self._sinks)
            yield (rows, *run.attend(run.q[:, :, rows], run.keys[:, :, sinks], run.values[:, :, sinks], None))
        while length < end:
            for stretch in range(first // length, -(-end // length)):
                if stretch % 2:
                    rows = slice(max(first, stretch * length) - first, min(end, (stretch + 1) * length) - first)
                    begin = max((stretch - 1) * length, self._sinks)
                    if begin < stretch * length:
                        yield from self._stretch(run, rows, begin, stretch * length - begin)
            length *= 2

    def _stretch(self, run: QueryRun, rows: slice, begin: int, length: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """What these queries see of the `length` keys from `begin` on."""
        q, (keys, values) = run.q[:, :, rows], (x[:, :, begin : begin + length] for x in (run.keys, run.values))
        groups = q.shape[1] // keys.shape[1]
        hashes, order, samples = self._sorted(run, keys, begin, length)
        blocks = self._blocks(hashes, self._hash(q).unflatten(1, (-1, groups)), length).flatten(1, 2)
        if q.shape[2] * self.block_size < length:  # a few queries: their blocks alone are copied
            places = blocks[..., None] * self.block_size + torch.arange(self.block_size, device=q.device)
            chosen = order.repeat_interleave(groups, 1).gather(2, places.flatten(2)).view_as(places)
            near, given = (chosen_rows(x, chosen).flatten(0, 2)[:, None] for x in (keys, values))
            out, lse = run.attend(q.reshape(-1, 1, 1, q.shape[3]), near, given, None)
            yield rows, out.view(*q.shape[:3], -1), lse.view(q.shape[:3])
        else:
            near, given = (
                x.gather(2, order[..., None].expand(*order.shape, x.shape[3])).unflatten(2, (-1, self.block_size)) for x in (keys, values)
            )
            yield (rows, *run.attend_chunks(q, near, given, blocks[..., None]))
        if not self.num_samples or length == self.block_size:
            return
        near, given = (chosen_rows(x, order.gather(2, samples)[:, :, None])[:, :, 0] for x in (keys, values))
        theirs = (samples // self.block_size).repeat_interleave(groups, 1)[:, :, None]
        for row in range(0, q.shape[2], _ROWS):
            part = slice(row, min(row + _ROWS, q.shape[2]))
            out, lse = run.attend(q[:, :, part], near, given, theirs != blocks[:, :, part, None])
            yield slice(rows.start + part.start, rows.start + part.stop), out, lse + math.log(length / self.num_samples)

    def _sorted(self, run: QueryRun, keys: Tensor, begin: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
        """Hashes of keys in their order, the places of these keys [B, K, length] each, and which of that order are samples [B, K, m].

        Kept for the last stretch of each length.
        """
        kept = run.memo.get(length)
        if kept is None or kept[0] != begin:
            hashes, order = self._hash(keys).sort(dim=-1, stable=True)
            samples = self._samples(begin, length, keys.shape[1]).to(keys.device).expand(len(keys), -1, -1)
            run.memo[length] = begin, (hashes, order, samples)
        return run.memo[length][1]

    def _hash(self, x: Tensor) -> Tensor:
        """The place [...] of vectors [..., D] in an order of all hashes in which neighbours differ by one bit."""
        with torch.no_grad():
            generator = torch.Generator().manual_seed(self.seed)
            directions = torch.randn(x.shape[-1], self.num_projections, generator=generator, dtype=torch.float64)
            bits = (x.detach() @ directions.to(x.device, x.dtype) > 0).long()
            # A Gray code's place: each bit is that of the hash and of all higher ones, added.
            ordinary = bits.flip(-1).cumsum(-1).flip(-1) % 2
            return (ordinary << torch.arange(self.num_projections, device=x.device)).sum(-1)

    def _blocks(self, hashes: Tensor, mine: Tensor, length: int) -> Tensor:
        """The block of sorted keys [B, K, G, n] in whose middle the hashes `mine` [B, K, G, n] stand; hashes: [B, K, length], sorted."""
        flat = mine.flatten(2)
        low, high = torch.searchsorted(hashes, flat), torch.searchsorted(hashes, flat, right=True)
        return ((low + high) // 2).clamp(max=length - 1).div(self.block_size, rounding_mode="floor").view_as(mine)

    def _samples(self, begin: int, length: int, kv_heads: int) -> Tensor:
        """Places [K, num_samples] among the sorted keys of a stretch."""
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + begin) * 64 + length.bit_length())
        return torch.randint(length, (kv_heads, self.num_samples), generator=generator)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Every key stands where it is."""
        return i - j, j <= i

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """What counts at all."""
        return i - j, self.counted(i, j, vectors) > 0

    def counted(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Stretch by stretch, query by query."""
        seen = ((j <= i) & (j >= 0)).repeat(len(vectors.q), 1, 1).double()
        if self._dense(vectors.layer):
            return seen
        padding = int((j < 0).sum())
        total = j.shape[-1] - padding
        places = torch.arange(total)
        repeats = vectors.layer.num_heads // vectors.layer.num_kv_heads
        for head in range(len(vectors.q)):
            q, k = (vectors.rotated(x[head, padding:].detach(), places) for x in (vectors.q, vectors.k))
            hashes, mine = self._hash(k).tolist(), self._hash(q).tolist()
            length = self.exact
            while length < total:
                for stretch in range(0, total - length, 2 * length):
                    begin, end = max(stretch, self._sinks), stretch + length
                    order = sorted(range(begin, end), key=lambda key: (hashes[key], key))
                    samples = self._samples(begin, end - begin, vectors.layer.num_kv_heads)[head // repeats].tolist() if order else []
                    for query in range(end, min(end + length, total)):
                        below = sum(hashes[key] < mine[query] for key in order)
                        same = sum(hashes[key] == mine[query] for key in order)
                        block = min(below + same // 2, end - begin - 1) // self.block_size
                        counts = dict.fromkeys(order, 0.0)
                        for key in order[block * self.block_size : (block + 1) * self.block_size]:
                            counts[key] = 1.0
                        for sample in samples if end - begin > self.block_size else ():
                            if sample // self.block_size != block:
                                counts[order[sample]] += (end - begin) / self.num_samples
                        for key, count in counts.items():
                            seen[head, padding + query, padding + key] = count
                length *= 2
        return seen


METHOD = Hyper
EXAMPLES = (
    Hyper(exact=8, block_size=4, num_samples=6, num_projections=3),
    Hyper(exact=12, block_size=3, num_samples=0, num_projections=4, dense_layers=1),
    Hyper(exact=4, block_size=4, num_samples=3, num_projections=2, seed=5),
    Hyper(exact=8, block_size=4, num_samples=6, num_projections=3, sink_blocks=0),
    Hyper(exact=4, block_size=4, num_samples=3, num_projections=2, sink_blocks=0),
)
NEUTRAL = (Hyper(exact=64, block_size=16, num_samples=8),)
BAD = (
    {"exact": 0},
    {"exact": 100, "block_size": 64},
    {"block_size": 0},
    {"num_samples": -1},
    {"num_projections": 0},
    {"dense_layers": -1},
    {"sink_blocks": -1},
    {"exact": 512, "sink_blocks": 3},
    {"seed": -1},
)
