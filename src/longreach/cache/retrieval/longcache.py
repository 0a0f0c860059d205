"""LongCache: all of the text is kept; each query finds its keys by content alone, and sees what stands around them beside a local window.

Paper: Farewell to Length Extrapolation, a Training-Free Infinite Context with Finite Attention Scope, 2024, arXiv:2407.15176 (its later
versions: ReAttention: Training-Free Infinite Context with Finite Attention Scope)
Cost: every query is compared with every key, without positions; two more copies of the keys, unrotated and rotated to places in a span.
Limits: any length, within local_window + (2 * num_spans + 2) * span_size trained positions; what no head finds is not seen.
Differs from the paper: it follows the authors' code; of the paper only the abstract could be had. Every query finds its spans by itself,
also in prefill, where the code lets 512 share what they find: so reading in chunks, at once and token by token agree. A span ends where the
text's pieces of `span_size` tokens do, and so has up to twice as many; so does the local window, which is up to a piece longer, and the
first piece stands for the initial tokens. Where heads share keys, the code compares a new token's queries with the keys of other heads;
here it is with their own. Products count to ten binary digits, and of what is then equal, or was found as often, the later is seen.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, Constant, LayerContext, Selection, Within
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.ranking import coarse, ranking
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class LongCache(CachePolicy):
    """Args: span_size: tokens around a key that was found, and first tokens of the text (authors: 32). num_spans: keys that a query finds,
    in all heads together, those that most heads found (authors: 64 to 96). local_window: nearest tokens, seen whole at true distances
    (authors: 4096 of a window of 8192). top_k: keys that each head proposes (authors: 1 to 4).
    """

    info: ClassVar = MethodInfo(
        title="Farewell to Length Extrapolation, a Training-Free Infinite Context with Finite Attention Scope",
        paper="arXiv:2407.15176",
        changes_positions=True,
        claims=(Claim(text="needles are found in 400K tokens and more (Llama-3, window of 8k)", metric="retrieval", at_least=0.85),),
    )
    span_size: int
    num_spans: int
    local_window: int
    top_k: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "span_size", "num_spans", "local_window", "top_k")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["LongCache", ...]:
        """Half of the window for local tokens, and the rest for spans of at most 32 of them, as the authors have it."""
        size = min(32, max(1, trained_window // 32))
        near = -(-max(1, trained_window // 2) // size)
        return (cls(span_size=size, num_spans=max(1, (trained_window // size - near - 2) // 2), local_window=near * size),)

    @property
    def _near(self) -> int:
        """Pieces of the local window, but for the query's own."""
        return -(-self.local_window // self.span_size)

    @property
    def _places(self) -> int:
        """Pieces at most beyond the local window."""
        return 2 * self.num_spans + 1

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The local window, and the pieces behind it at the places that follow, nearest first."""
        size, first = self.span_size, self._near + 1
        places = tuple(Within(size, shift=(first + place) * size) for place in range(self._places))
        chosen = Selection(chooser=self, chunk=size, queries=places, keys=Within(size), lo=first, finders=Constant(0))
        return (Band(hi=self._near, chunk=size), chosen)

    def summarize(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Nothing: it looks at every key."""
        raise AssertionError("pieces are found by their keys")

    def select(self, q: Tensor, keys: Tensor, count: Tensor) -> Tensor:
        """The first piece and those that the spans of the keys lie in that most heads found, [B, 1, T, P], nearest first."""
        size, groups = self.span_size, q.shape[1] // keys.shape[1]
        flat = keys.flatten(2, 3)
        tokens = torch.arange(flat.shape[2], device=q.device)
        index = tokens.masked_fill(tokens < size, -1).where(tokens < count[:, None] * size, -1)
        found = []
        for head in range(q.shape[1]):  # one by one: each is compared with the whole text
            best = ranking(q[:, head] @ flat[:, head // groups].mT, index).topk(min(self.top_k, len(tokens)), dim=-1).indices
            found.append(best.where(index.expand(len(q), -1, -1).gather(2, best) >= 0, -1))
        token = self._most_found(torch.cat(found, -1), len(tokens))
        last = count[:, None] - 1
        ends = [(token + shift).clamp(min=size).floor_divide(size).minimum(last) for shift in (-(size // 2), size - 1 - size // 2)]
        pieces = torch.cat([end.masked_fill(token < 0, -1) for end in ends], -1)
        first = torch.zeros_like(last).masked_fill(last < 0, -1).expand(len(q), -1, -1)
        pieces = torch.cat([pieces, first], -1).sort(-1, descending=True).values
        again = torch.zeros_like(pieces, dtype=torch.bool)
        again[..., 1:] = pieces[..., 1:] == pieces[..., :-1]
        return pieces.masked_fill(again, -1).sort(-1, descending=True).values[:, None]

    def _most_found(self, found: Tensor, total: int) -> Tensor:
        """Of tokens [B, T, n] (-1: none) below `total` those that stand there most often, [B, T, m]; of equal ones the later."""
        same = found[..., :, None] == found[..., None, :]
        before = torch.ones_like(same[0, 0]).tril(-1)
        rank = (same.sum(-1) * total + found).masked_fill((same & before).any(-1) | (found < 0), -1)
        best = rank.topk(min(self.num_spans, found.shape[-1]), dim=-1)
        return found.gather(-1, best.indices).masked_fill(best.values < 0, -1)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a key can stand."""
        size = self.span_size
        place = (i // size - j // size).clamp(max=self._near + self._places)
        return place * size + i % size - j % size, j <= i

    def sight(self, i: int, history: History) -> Sight:
        """Head by head and token by token, for one query."""
        size, groups = self.span_size, len(history.q) // len(history.k)
        own, relative = i // size, i - torch.arange(history.k.shape[1])
        behind = max(0, own - self._near)
        middle, votes = range(size, behind * size), Counter[int]()
        for head, q in enumerate(history.q[:, i]):
            worth = coarse(history.k[head // groups, middle.start : max(size, middle.stop)] @ q).tolist()
            votes.update(token for _, token in sorted(zip(worth, middle, strict=True), reverse=True)[: self.top_k])
        found = sorted(votes, key=lambda token: (votes[token], token), reverse=True)[: self.num_spans]
        spans = {min(max(token - size // 2 + step, middle.start), middle.stop - 1) // size for token in found for step in range(size)}
        pieces = sorted(spans | ({0} if behind else set()), reverse=True)
        seen = list(range(behind * size, i + 1))
        for place, piece in enumerate(pieces, self._near + 1):
            for token in range(piece * size, (piece + 1) * size):
                relative[token] = place * size + i % size - token % size
                seen.append(token)
        return Sight(tokens=[seen] * len(history.k), relative=relative.repeat(len(history.k), 1))


METHOD = LongCache
EXAMPLES = (
    LongCache(span_size=4, num_spans=2, local_window=8, top_k=2),
    LongCache(span_size=5, num_spans=1, local_window=3, top_k=1),
    LongCache(span_size=1, num_spans=6, local_window=5, top_k=3),
)
NEUTRAL = (LongCache(span_size=4, num_spans=2, local_window=64),)
BAD = (
    {"span_size": 0, "num_spans": 1, "local_window": 8},
    {"span_size": 4, "num_spans": 0, "local_window": 8},
    {"span_size": 4, "num_spans": 1, "local_window": 0},
    {"span_size": 4, "num_spans": 1, "local_window": 8, "top_k": 0},
)
