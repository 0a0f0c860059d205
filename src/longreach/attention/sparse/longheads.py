"""LongHeads: every head chooses the chunks that a query sees, by chunk representations, and packs them into the trained window.

Paper: LongHeads: Multi-Head Attention is Secretly a Long Context Processor, 2024, arXiv:2402.10685
Cost: chunk_size * num_chunks keys a query, however long the text, and one comparison a chunk; one vector more a chunk; no training.
Limits: any length, within chunk_size * num_chunks trained positions; what no head chooses is not seen, and only chunks keep their order;
between chunks that are alike word for word, the choice can hang on rounding.
Differs from the paper: heads that share keys choose for themselves, too; the last chunk that is seen whole counts as chosen at all places
of the current one (the authors' code drops it for a chunk's last token), and a query of the prompt sees itself (there it does not).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Band, LayerContext, Selection, Within
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class LongHeads(Places):
    """Args: chunk_size: tokens a chunk (paper: 256). num_chunks: chunks that a head sees at once, with the first, the one before the
    query's own and that itself among them (paper: the trained window / chunk_size; >= 3).
    """

    info: ClassVar = MethodInfo(
        title="LongHeads: Multi-Head Attention is Secretly a Long Context Processor",
        paper="arXiv:2402.10685",
        claims=(
            Claim(text="passkeys are found in 16 and 32 windows of text (Llama-2)", metric="retrieval", at_least=0.85),
            Claim(text="perplexity stays low from 4k to 32k tokens", metric="rise", at_most=0.05),
        ),
    )
    chunk_size: int
    num_chunks: int

    def __post_init__(self) -> None:
        at_least(self, 2, "chunk_size")
        at_least(self, 3, "num_chunks")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["LongHeads", ...]:
        """The paper's sixteen chunks to a window, and half as many twice as large."""
        sizes = dict.fromkeys(min(max(2, trained_window // count), max(2, trained_window // 3)) for count in (16, 8))
        return tuple(cls(chunk_size=size, num_chunks=max(3, trained_window // size)) for size in sizes)

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's own chunk, the one before, and the chosen ones at the places behind, nearest first."""
        size = self.chunk_size
        places = [Within(size, place * size) for place in range(self.num_chunks)]
        return (
            Band(chunk=size, hi=0, queries=places[0], keys=places[0]),
            Band(chunk=size, lo=1, hi=1, queries=places[1], keys=places[0]),
            Selection(chooser=self, chunk=size, queries=tuple(places[2:]), keys=places[0], lo=2),
        )

    def summarize(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """The paper's chunk representation: the mean output of attention inside a chunk, as a query, gives the mean key for it.

        q [B, H, n, C, D], k and v [B, K, n, C, D], at their places in the chunk -> [B, H, n, D].
        """
        repeats = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        outputs = (q @ k.mT * scale).softmax(-1) @ v
        return ((outputs.mean(-2, keepdim=True) @ k.mT * scale).softmax(-1) @ k).squeeze(-2)

    def select(self, q: Tensor, summaries: Tensor, count: Tensor) -> Tensor:
        """The first chunk and those with the largest products with the query, nearest first; of equal ones the nearest."""
        places = min(self.num_chunks - 2, summaries.shape[2])
        chunks = torch.arange(summaries.shape[2], device=q.device)
        scores = (q @ summaries.mT).masked_fill(chunks == 0, float("inf")).masked_fill(chunks >= count[:, None], float("-inf"))
        best, back = torch.sort(scores.flip(-1), dim=-1, descending=True, stable=True)
        chosen = (summaries.shape[2] - 1 - back[..., :places]).masked_fill(best[..., :places] == float("-inf"), -1)
        return chosen.sort(-1, descending=True).values

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a chunk can be placed."""
        place = (i // self.chunk_size - j // self.chunk_size).clamp(max=self.num_chunks - 1)
        return place * self.chunk_size + i % self.chunk_size - j % self.chunk_size, j <= i

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """The paper's choice, query by query."""
        size, begin, total = self.chunk_size, int((j < 0).sum()), j.shape[-1]
        relative, visible = (i - j).repeat(len(vectors.q), 1, 1), ((j <= i) & (j >= 0)).repeat(len(vectors.q), 1, 1)
        chunks = [slice(a, a + size) for a in range(begin, total - size + 1, size)]
        for head, (q, k, v) in enumerate(zip(vectors.q.detach(), vectors.k.detach(), vectors.v.detach(), strict=True)):
            means = []
            for part in chunks:
                turned, keys = (vectors.rotated(x[part], torch.arange(size)) for x in (q, k))
                mean = ((turned @ keys.T * vectors.scale).softmax(-1) @ v[part]).mean(0)
                means.append((mean @ keys.T * vectors.scale).softmax(-1) @ keys)
            for query in range(begin, total):
                own = (query - begin) // size
                ranked = sorted(((float(q[query] @ means[chunk]), chunk) for chunk in range(1, own - 1)), reverse=True)
                middle = [chunk for _, chunk in ranked]
                seen = sorted({0, own - 1, own, *middle[: self.num_chunks - 3]} - {-1})
                for place, chunk in enumerate(reversed(seen)):
                    keys = torch.arange(begin + chunk * size, min(begin + (chunk + 1) * size, total))
                    relative[head, query, keys] = place * size + (query - begin) % size - (keys - begin) % size
                hidden = [x for x in range(begin, query + 1) if (x - begin) // size not in seen]
                visible[head, query, hidden] = False
        return relative, visible


METHOD = LongHeads
EXAMPLES = (LongHeads(chunk_size=5, num_chunks=5), LongHeads(chunk_size=5, num_chunks=3), LongHeads(chunk_size=7, num_chunks=4))
NEUTRAL = (LongHeads(chunk_size=16, num_chunks=4), LongHeads(chunk_size=5, num_chunks=10))
BAD = ({"chunk_size": 1, "num_chunks": 4}, {"chunk_size": 4, "num_chunks": 2})
