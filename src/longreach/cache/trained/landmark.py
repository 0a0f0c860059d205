"""Landmark Attention: a landmark behind every block of the text says how much a query gives the block, and finds it when it is far away.

Paper: Landmark Attention: Random-Access Infinite Context Length for Transformers, 2023, arXiv:2305.16300
Cost: the cache of the whole text, and a token more for each block; a query reads its own block, `num_blocks` others, and one key for each
block of the text. The whole model has to be trained with landmarks.
Limits: a query sees `num_blocks` blocks beside its own, of each layer and head; what its landmark does not tell of a block is not found.
Differs from the paper: every query chooses blocks by itself, also those that are read in one forward pass, where the official code lets
them see all blocks of that pass, and the same holds in training: there `num_blocks` has to cover the sequence for what the paper trains.
The window's last blocks are not seen beside those that are chosen, as in the official code after a prompt. Landmark scores count to ten
binary digits, and of equal ones the later block is read. In layers with a sliding window of their own nobody sees landmarks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from longreach.cache.trained.base import Inserts, Spot
from longreach.core.bands import Band, LayerContext
from longreach.core.inserted import Inserted, InsertedRun, Spread
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.ranking import coarse, ranking

if TYPE_CHECKING:
    import numpy as np

_ROWS = 256  # queries computed at once: bounds the memory of their logits, and of their copies for each block


@dataclass(frozen=True, kw_only=True)
class Landmark(Inserts):
    """Args: block_size: tokens that a landmark stands for (paper: 50). num_blocks: blocks that a query reads beside its own
    (paper: 2 to 5).

    In training `drawn` has queries read all blocks of a text.
    """

    info: ClassVar = MethodInfo(
        title="Landmark Attention: Random-Access Infinite Context Length for Transformers",
        paper="arXiv:2305.16300",
        training_free=False,
        claims=(
            Claim(
                text="perplexity of PG-19 at 4 times the training length is below that at it",
                metric="memory_rise_8x",
                condition="trained",
                times=8,
                at_most=0.0,
            ),
            Claim(
                text="LLaMA 7B, tuned on 512 tokens, finds 98 % of the passkeys in 32k tokens",
                metric="memory_found_8x",
                condition="trained",
                times=8,
                at_least=0.85,
            ),
        ),
    )
    keep_all: ClassVar[bool] = True
    weights_alone: ClassVar[bool] = False
    block_size: int = 50
    num_blocks: int = 5

    def __post_init__(self) -> None:
        at_least(self, 1, "block_size", "num_blocks")

    @property
    def stride(self) -> int:
        """Positions of a block: of its tokens, and of its landmark."""
        return self.block_size + 1

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's own block, and what landmarks lead to."""
        places = Spread(self.block_size)
        return (
            Band(queries=places, keys=places, chunk=self.block_size, hi=0),
            Inserted(reader=self, every=self.block_size, keys=places),
        )

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`embedding` [1, hidden_size] of landmarks: at first the mean of all tokens'."""
        return {"embedding": layer.mean_embedding()[None]} if layer.first else {}

    def embeddings(self, layer: LayerContext) -> Tensor:
        """That of all landmarks."""
        return layer.weights["landmark.embedding"]

    def drawn(self, rng: "np.random.Generator", length: int, trained_window: int) -> "Landmark":
        """All blocks of the text are seen, as in the paper."""
        return replace(self, num_blocks=max(self.num_blocks, length // self.block_size))

    def training_length(self, trained_window: int) -> int:
        """What fills the trained window together with landmarks."""
        return max(1, trained_window // self.stride) * self.block_size

    def pieces(self, run: InsertedRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of landmarks, their own block; of all queries, the blocks before."""
        size, count = self.block_size, run.q.shape[2]
        block, place = (run.index, torch.full_like(run.index, size)) if run.inserted else (run.index // size, run.index % size)
        q = run.turn(run.q, block * self.stride + place)
        if run.inserted:
            keys, values = (_blocks(x, size, int(block[-1]) + 1) for x in (run.keys, run.values))
            out, lse = run.attend_chunks(q, keys, values, block[None, None, :, None])
            yield slice(0, count), out[:, :, :, 0], lse[..., 0]
        landmarks = run.turn(run.own_keys, torch.arange(run.own_keys.shape[2], device=q.device) * self.stride + size)
        first, few = (int((block < least).sum()) for least in (1, self.num_blocks + 1))
        for begin, end, seen in ((first, few, self._all), (few, count, self._chosen)):
            for row in range(begin, end, _ROWS):
                rows = slice(row, min(row + _ROWS, end))
                yield (rows, *seen(run, q[:, :, rows], run.q[:, :, rows], landmarks, block[rows], place[rows]))

    def _all(self, run: InsertedRun, q: Tensor, raw: Tensor, landmarks: Tensor, block: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """All blocks before the queries' own, where they are."""
        size, count = self.block_size, int(block[-1])
        later = torch.arange(count, device=q.device) >= block[:, None]
        gates = _logits(run, q, landmarks[:, :, :count]).masked_fill(later, float("-inf"))
        inside = _logits(run, q, run.keys[:, :, : count * size]).unflatten(3, (count, size)).softmax(-1)
        lse = gates.logsumexp(-1)
        given = (inside * torch.exp(gates - lse[..., None])[..., None]).flatten(3)
        return _sum(given, run.values[:, :, : count * size]), lse

    def _chosen(self, run: InsertedRun, q: Tensor, raw: Tensor, landmarks: Tensor, block: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks whose landmarks score highest, in the order of the text, right before the queries' own."""
        size, most, count = self.block_size, self.num_blocks, int(block[-1])
        with torch.no_grad():
            chosen = self._choice(run, q, raw, landmarks, block, place)
        moved = torch.arange(most, device=q.device) + (chosen >= (block - most)[:, None])
        position = (chosen + most + 1 - moved) * self.stride + place[:, None]
        placed = run.turn(raw[:, :, :, None].expand(*chosen.shape, -1).flatten(2, 3), position.flatten(2, 3)).unflatten(2, (-1, most))
        keys, values = (_blocks(x, size, count) for x in (run.keys, run.values))
        outs, _ = run.attend_chunks(placed, keys, values, chosen)
        rows = chosen.flatten(2)[..., None].expand(-1, -1, -1, landmarks.shape[3])
        found = landmarks.repeat_interleave(q.shape[1] // landmarks.shape[1], 1).gather(2, rows).view_as(placed)
        gates = _scaled(run, (placed.to(found.dtype) * found).sum(-1))
        lse = gates.logsumexp(-1)
        return (outs * torch.exp(gates - lse[..., None])[..., None].to(outs.dtype)).sum(3), lse

    def _choice(self, run: InsertedRun, q: Tensor, raw: Tensor, landmarks: Tensor, block: Tensor, place: Tensor) -> Tensor:
        """Blocks [B, H, T, num_blocks], ascending: scored where they are, or right before the last `num_blocks`, whichever is nearer."""
        count = int(block[-1])
        index = torch.arange(count, device=q.device)
        still = run.turn(run.own_keys[:, :, :count], torch.full_like(index, self.block_size))
        far = _logits(run, run.turn(raw, (self.num_blocks + 1) * self.stride + place), still)
        away = block[:, None] - index
        score = torch.where(away <= self.num_blocks, _logits(run, q, landmarks[:, :, :count]), far)
        return ranking(score, index.masked_fill(away < 1, -1).expand_as(score)).topk(self.num_blocks, dim=-1).indices.sort(-1).values

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a key can stand: where it is, or as far as landmarks are scored at."""
        places = Spread(self.block_size)
        return (places(i) - places(j)).clamp(max=(self.num_blocks + 1) * self.stride), j <= i

    def given(
        self, query: Spot, spots: Sequence[Spot], logit: Callable[[Sequence[Any]], Tensor], layer: LayerContext
    ) -> tuple[Tensor, Tensor]:
        """Token by token, as the paper writes it."""
        block, place = self._home(query)
        homes = [self._home(spot) for spot in spots]
        most = min(self.num_blocks, block)
        scores = coarse(logit([min(block - b, most + 1) * self.stride + place - p for b, p in homes]).detach())
        gate = {b: number for number, (b, p) in enumerate(homes) if p == self.block_size}
        given, totals = [], []
        for head in range(len(scores)):
            ranked = sorted(((float(scores[head, gate[b]]), b) for b in range(block)), reverse=True)
            chosen = sorted(b for _, b in ranked[:most])
            away = {b: most + 1 - (number + (b >= block - most)) for number, b in enumerate(chosen)} | {block: 0}
            logits = logit([away.get(b, 0) * self.stride + place - p for b, p in homes])[head]
            own = [number for number, (b, p) in enumerate(homes) if b == block and p < self.block_size]
            weights = torch.zeros_like(logits)
            total = logits[own + [gate[b] for b in chosen]].logsumexp(0)
            for number in own:
                weights = weights.index_add(0, torch.tensor([number]), (logits[number] - total).exp()[None])
            for b in chosen:
                inside = torch.tensor([number for number, (other, p) in enumerate(homes) if other == b and p < self.block_size])
                weights = weights.index_add(0, inside, logits[inside].softmax(0) * (logits[gate[b]] - total).exp())
            given.append(weights)
            totals.append(total)
        return torch.stack(given), torch.stack(totals)

    def _home(self, spot: Spot) -> tuple[int, int]:
        """Block, and place in it."""
        return (spot.index, self.block_size) if spot.inserted else divmod(spot.index, self.block_size)


def _blocks(x: Tensor, size: int, count: int) -> Tensor:
    """The first blocks of x [B, K, S, D]: [B, K, n, C, D]."""
    return x[:, :, : count * size].unflatten(2, (count, size))


def _scaled(run: InsertedRun, products: Tensor) -> Tensor:
    logits = products.to(torch.promote_types(products.dtype, torch.float32)) * run.scale
    return logits if run.softcap is None else run.softcap * torch.tanh(logits / run.softcap)


def _logits(run: InsertedRun, q: Tensor, k: Tensor) -> Tensor:
    """[B, H, T, S] of q [B, H, T, D] and k [B, K, S, D]."""
    b, h, t, d = q.shape
    return _scaled(run, (q.to(k.dtype).reshape(b, k.shape[1], -1, d) @ k.mT).view(b, h, t, -1))


def _sum(weights: Tensor, v: Tensor) -> Tensor:
    """Values v [B, K, S, D] by weights [B, H, T, S]: [B, H, T, D]."""
    b, h, t, s = weights.shape
    return (weights.to(v.dtype).reshape(b, v.shape[1], -1, s) @ v).view(b, h, t, -1)


METHOD = Landmark
EXAMPLES = (
    Landmark(block_size=6, num_blocks=2),
    Landmark(block_size=5, num_blocks=20),
    Landmark(block_size=1, num_blocks=1),
)
NEUTRAL = (Landmark(block_size=64),)
BAD = ({"block_size": 0}, {"num_blocks": 0})
