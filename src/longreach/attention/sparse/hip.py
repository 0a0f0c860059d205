"""HiP: a search down a tree of the text finds the keys that a block of queries looks at most; it and its neighbours are all that they see.

Paper: A Training-free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention, 2024, arXiv:2406.09827
Cost: the cache of the whole text; a query reads `budget` keys and its window, and a block of queries is compared with some
log2(text / budget) times as many; no training.
Limits: the window of the model is unchanged; it saves time, not memory. What the tree's few samples of a stretch of text do not show is not
found.
Differs from the paper: no query looks ahead: a block chooses by its first query, where the official code takes every second one of the
block, the later ones, too. The last block or two of a prompt choose query by query, and what follows `refresh` queries at a time. Scores
count to ten binary digits, and of equal ones the later keys are read.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.attention.sparse._rows import at_once, chosen_rows
from longreach.core.bands import Band, Computed, LayerContext, QueryRun
from longreach.core.errors import SpecError
from longreach.core.memory import View
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import coarse, ranking


@dataclass(frozen=True, kw_only=True)
class Hip(Places):
    """Args: budget: keys that a query reads besides its window (paper: 512). query_block: queries that share a choice (paper: 32).
    key_block: keys that are chosen together (paper: 2); divides budget and query_block. refresh: queries that share a choice after the
    prompt (paper: 8, of tokens that are written; questions that are read there find less by it); divides query_block. near: blocks of
    queries before its own that a query sees whole. dense_layers: first layers that see everything (paper: 3); the last layer never does.
    """

    info: ClassVar = MethodInfo(
        title="A Training-free Sub-quadratic Cost Transformer Model Serving Framework with Hierarchically Pruned Attention",
        paper="arXiv:2406.09827",
    )
    budget: int = 512
    query_block: int = 32
    key_block: int = 2
    refresh: int = 1
    near: int = 4
    dense_layers: int = 3

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "query_block", "key_block", "refresh")
        at_least(self, 0, "near", "dense_layers")
        for name in ("budget", "query_block"):
            if getattr(self, name) % self.key_block:
                raise SpecError(f"hip: {name}={getattr(self, name)} must be a multiple of key_block={self.key_block}")
        if self.query_block % self.refresh:
            raise SpecError(f"hip: refresh={self.refresh} must divide query_block={self.query_block}")

    def _dense(self, layer: LayerContext) -> bool:
        return layer.full_layers.index(layer.layer_idx) < min(self.dense_layers, len(layer.full_layers) - 1)

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's block and those right before it, and what is found before them."""
        if self._dense(layer):
            return (Band(),)
        return (Band(chunk=self.query_block, hi=self.near), Computed(self, queries=self.query_block, waits=True))

    def _tail(self, prompt: int) -> int:
        """Index of the first query that chooses for itself alone."""
        return max(0, (prompt - self.query_block) // self.query_block * self.query_block)

    def _chooser(self, query: int, prompt: int) -> int:
        """The query that chooses for this one."""
        if query < self._tail(prompt):
            return query // self.query_block * self.query_block
        return query if query < prompt else max(prompt, query // self.refresh * self.refresh)

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Blocks of the prompt, its last queries one by one, and then `refresh` queries at a time."""
        begin, end, size = run.first, run.first + run.q.shape[2], self.query_block
        tail = min(self._tail(run.prompt), end)
        first = max(begin // size, self.near + 1)  # the first block that has something far away
        together = at_once(run.q.shape[0] * run.q.shape[1] * self.budget * run.q.shape[3])
        blocks = -(-tail // size) if begin < tail else first
        for block in range(first, blocks, together):
            starts = torch.arange(block, min(block + together, blocks)) * size
            yield self._blocks(run, starts, size, tail)
        alone, least = min(max(begin, run.prompt), end), (self.near + 1) * size
        for query in range(max(begin, tail, least), alone, together):
            yield self._blocks(run, torch.arange(query, min(query + together, alone)), 1, alone)
        query = max(alone, least)
        while query < end:
            first = self._chooser(query, run.prompt)
            behind = min(end, (query // self.refresh + 1) * self.refresh)
            yield self._blocks(run, torch.tensor([first]), self.refresh, behind)
            query = behind

    def _blocks(self, run: QueryRun, starts: Tensor, size: int, end: int) -> tuple[slice, Tensor, Tensor]:
        """What the blocks of `size` queries from `starts` [n] on see, of those from the run's first one up to, exclusive, `end`."""
        b, h, _, d = run.q.shape
        n, first = len(starts), int(starts[0])
        limits = (starts // self.query_block - self.near) * (self.query_block // self.key_block)
        keys, values = (x[:, :, : int(limits[-1]) * self.key_block].unflatten(2, (-1, self.key_block)) for x in (run.keys, run.values))
        if run.memo.get("first") != first or n > 1:  # token by token, a choice holds for some
            seen = run.queries(first, int(starts[-1]) + 1)[:, :, ::size]  # the first of each block
            run.memo.update(first=first if n == 1 else None, chosen=self._search(seen, keys, limits.to(keys.device)))
        chosen, there = run.memo["chosen"]
        taken, given = (chosen_rows(x, chosen).view(b * h * n, 1, -1, x.shape[-1]) for x in (keys, values))
        # The first block may begin before the run, and the last may end after it: empty seats.
        rows = slice(max(first, run.first) - run.first, min(first + n * size, end) - run.first)
        before, behind = max(0, run.first - first), first + n * size - run.first - rows.stop
        q = torch.nn.functional.pad(run.q[:, :, rows], (0, 0, before, behind)).reshape(b * h * n, 1, size, d)
        mask = None
        if not bool(there.all()):
            mask = there.repeat_interleave(self.key_block, -1).reshape(-1, 1, 1, taken.shape[2]).expand(-1, -1, size, -1)
        out, lse = run.attend(q, taken, given, mask)
        out, lse = out.reshape(b, h, n * size, -1), lse.reshape(b, h, n * size)
        return rows, out[:, :, before : n * size - behind], lse[:, :, before : n * size - behind]

    @torch.no_grad()
    def _search(self, q: Tensor, keys: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks of keys [B, H, n, P] that queries q [B, H, n, D] look at most, and which of them are there.

        keys: [B, K, m, C, D]. limits: [n] a run of queries may choose from the first so many blocks.
        """
        shape = (*q.shape[:3], self.budget // self.key_block)
        limits, nodes = limits[:, None], torch.arange(shape[3], device=q.device)
        count = limits.clamp(max=shape[3])
        begin = limits * nodes // count
        size = ((limits * (nodes + 1) // count) - begin).masked_fill(nodes >= count, 0).expand(shape)
        begin = begin.masked_fill(nodes >= count, 0).expand(shape)

        def score(index: Tensor) -> Tensor:
            return (chosen_rows(keys, index).flatten(3, 4) @ q[..., None]).view(*index.shape, -1).amax(-1)

        known = score(begin) if int(size.max()) > 1 else None
        while known is not None and int(size.max()) > 1:
            half = size // 2
            split = torch.cat([begin, begin + half], -1)
            sizes = torch.cat([half, size - half], -1)
            known = torch.cat([known, score(begin + half)], -1)
            best = ranking(known, split.masked_fill(sizes < 1, -1)).topk(shape[3], dim=-1).indices
            begin, size, known = split.gather(-1, best), sizes.gather(-1, best), known.gather(-1, best)
        return begin, size > 0

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Every key stands where it is."""
        return i - j, j <= i

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """The search, node by node."""
        visible = ((j <= i) & (j >= 0)).repeat(len(vectors.q), 1, 1)
        if self._dense(vectors.layer):
            return i - j, visible
        padding = int((j < 0).sum())
        places = torch.arange(j.shape[-1] - padding)
        for head, (q, k) in enumerate(zip(vectors.q.detach()[:, padding:], vectors.k.detach()[:, padding:], strict=True)):
            q, k = vectors.rotated(q, places), vectors.rotated(k, places)
            for query in places.tolist():
                far = (query // self.query_block - self.near) * self.query_block
                if far <= 0:
                    continue
                blocks = self._searched(k @ q[self._chooser(query, vectors.prompt)], far // self.key_block)
                gone = [x for x in range(far) if x // self.key_block not in blocks]
                visible[head, padding + query, [padding + x for x in gone]] = False
        return i - j, visible

    def _searched(self, logits: Tensor, blocks: int) -> list[int]:
        """The blocks that a query with these logits [T] finds among the first `blocks`."""

        def score(block: int) -> float:
            return float(coarse(logits[block * self.key_block : (block + 1) * self.key_block].max()))

        most = min(self.budget // self.key_block, blocks)
        nodes = [(blocks * x // most, blocks * (x + 1) // most) for x in range(most)]
        while any(end - begin > 1 for begin, end in nodes):
            halves = [half for begin, end in nodes for half in ((begin, begin + (end - begin) // 2), (begin + (end - begin) // 2, end))]
            ranked = sorted(((score(begin), begin, end) for begin, end in halves if end > begin), reverse=True)
            nodes = [(begin, end) for _, begin, end in ranked[:most]]
        return [begin for begin, _ in nodes]


METHOD = Hip
EXAMPLES = (
    Hip(budget=8, query_block=4, key_block=2, refresh=2, near=1, dense_layers=0),
    Hip(budget=6, query_block=6, key_block=1, refresh=6, near=0, dense_layers=1),
    Hip(budget=4, query_block=1, key_block=1, refresh=1, near=0, dense_layers=0),
)
NEUTRAL = (Hip(budget=64, query_block=8, key_block=4), Hip(near=2, query_block=32, key_block=8))
BAD = (
    {"budget": 0},
    {"budget": 13},
    {"query_block": 31},
    {"refresh": 3},
    {"near": -1},
    {"dense_layers": -1},
)
