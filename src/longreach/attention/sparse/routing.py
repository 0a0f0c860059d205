"""Routing Transformer: in half of the heads a query sees the last keys of its cluster, in the others the last keys of the text.

Paper: Efficient Content-Based Sparse Attention with Routing Transformers, 2020, arXiv:2003.05997
Cost: a query reads window_size keys, and with its key is compared with num_clusters centroids; the cache of the whole text, with a copy of
the keys.   Limits: a model has to be trained under it; centroids are weights of its own (longreach.equip), which follow queries and keys in
training. A query of a routed head whose cluster has no key so far gets 0.
Differs from the paper: a token belongs to the cluster of the nearest centroid, and a query sees the last keys of its own. The paper gives a
cluster the tokens of the whole text that are nearest to its centroid, so that a later token can push an earlier one out: what is written
token by token would not be what was trained. Queries are not made keys, too. No loss draws vectors to their centroids (weight 1e-4). Logits
are scaled as the model scales them. Routed heads have no positions, and local ones a sliding window instead of blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, one_hot, pad

from longreach.attention.base import Follows, Places, Vectors
from longreach.attention.sparse._rows import at_once
from longreach.core.bands import Computed, Constant, LayerContext, QueryRun
from longreach.core.errors import SpecError
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

_ROWS = 256  # queries of local heads whose masks are made at once
_EPSILON = 1e-6  # of the variance, as in the official code


@dataclass(frozen=True, kw_only=True)
class Routing(Places, Follows):
    """Args: num_clusters: of each routed head (paper: about the root of the text's length). window_size: keys that a query sees, its own
    included (>= 1; paper: 256). decay: share of a centroid's weight that a step of training leaves (0 to 1; paper: 0.999).
    """

    info: ClassVar = MethodInfo(
        title="Efficient Content-Based Sparse Attention with Routing Transformers",
        paper="arXiv:2003.05997",
        training_free=False,
        claims=(
            Claim(
                text="15.8 perplexity on Wikitext-103, where comparable sparse attention has 18.3",
                metric="costs_inside_above_local",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    num_clusters: int = 16
    window_size: int = 256
    decay: float = 0.999

    def __post_init__(self) -> None:
        at_least(self, 1, "num_clusters", "window_size")
        if not 0 <= self.decay < 1:
            raise SpecError(f"routing: decay={self.decay:g} must be at least 0 and below 1")

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`centroids` [R, C, D] of the routed heads, how many vectors each stands for, `mass` [R, C], and what a step has read so far:
        `sums` [R, C, D] and `counts` [R, C] of the vectors nearest to each.
        """
        shape = layer.num_heads - _local(layer.num_heads), self.num_clusters, layer.head_dim
        centroids = layer_norm(torch.randn(shape), shape[2:])
        return {"centroids": centroids, "mass": torch.ones(shape[:2]), "sums": torch.zeros(shape), "counts": torch.zeros(shape[:2])}

    @torch.no_grad()
    def follow(self, layer: LayerContext) -> None:
        """Centroids move to the exponential average of what is nearest to them; one that nothing is nearest to stays."""
        centroids, mass, sums, counts = (layer.weights[f"routing.{name}"] for name in ("centroids", "mass", "sums", "counts"))
        kept, new = self.decay * mass, (1 - self.decay) * counts
        moved = (kept[..., None] * centroids + (1 - self.decay) * sums) / (kept + new).clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
        centroids.copy_(torch.where(counts[..., None] > 0, moved, centroids))
        mass.copy_(kept + new)
        sums.zero_()
        counts.zero_()

    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """Local heads, at the positions of tokens, and routed ones, without positions."""
        return (Computed(_LocalHeads(self.window_size)), Computed(_RoutedHeads(self, layer), positions=Constant(0), normalised=True))

    def keys_read(self, i: Tensor) -> Tensor:
        """As many as a window has at most, and, in routed heads alone, centroids for a query and for a key."""
        return (i + 1).clamp(max=self.window_size) + self.num_clusters

    def masses(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor:
        """Head by head and query by query."""
        padding, local = int((j < 0).sum()), _local(len(vectors.q))
        centroids = vectors.layer.weights["routing.centroids"].detach().double()
        found = []
        for head, (q, k) in enumerate(zip(vectors.q[:, padding:], vectors.k[:, padding:], strict=True)):
            if head < local:
                q, k = (vectors.rotated(x, i[padding:, 0]) for x in (q, k))
                chosen = [list(range(max(0, query + 1 - self.window_size), query + 1)) for query in range(len(q))]
            else:
                q, k = ((x - x.mean(-1, True)) / (x.var(-1, correction=0, keepdim=True) + _EPSILON).sqrt() for x in (q, k))
                mine, theirs = ((x @ centroids[head - local].mT).argmax(-1).tolist() for x in (q, k))
                chosen = [[key for key in range(query + 1) if theirs[key] == mine[query]][-self.window_size :] for query in range(len(q))]
            logits = q @ k.mT * vectors.scale
            logits = logits if vectors.softcap is None else vectors.softcap * (logits / vectors.softcap).tanh()
            seen = torch.zeros(logits.shape, dtype=torch.bool)
            for query, keys in enumerate(chosen):
                seen[query, keys] = True
            found.append(pad(torch.where(seen, logits, -torch.inf).exp(), (padding, 0, padding, 0)))
        return torch.stack(found)


def _local(heads: int) -> int:
    """How many heads are local, the first ones."""
    return heads // 2


@dataclass(frozen=True)
class _LocalHeads:
    """The last `window` keys."""

    window: int

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many queries at a time; routed heads see nothing here."""
        heads = run.q.shape[1]
        local, repeats = _local(heads), heads // run.keys.shape[1]
        for row in range(0, run.q.shape[2] if local else 0, _ROWS):
            rows = slice(row, min(row + _ROWS, run.q.shape[2]))
            seen = slice(max(0, run.first + row + 1 - self.window), run.first + rows.stop)
            query = torch.arange(run.first + row, seen.stop, device=run.q.device)[:, None]
            between = query - torch.arange(seen.start, seen.stop, device=query.device)
            mask = ((between >= 0) & (between < self.window)).expand(len(run.q), 1, -1, -1)
            keys, values = (x[:, :, seen].repeat_interleave(repeats, 1)[:, :local] for x in (run.keys, run.values))
            out, lse = run.attend(run.q[:, :local, rows], keys, values, mask)
            unseen = heads - local
            yield rows, pad(out, (0, 0, 0, 0, 0, unseen)), pad(lse, (0, 0, 0, unseen), value=-torch.inf)


@dataclass(frozen=True)
class _RoutedHeads:
    """The last keys of the query's cluster."""

    policy: Routing
    layer: LayerContext

    def pieces(self, run: QueryRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """So many queries at a time; local heads see nothing here."""
        b, heads, count, d = run.q.shape
        local, width = _local(heads), self.policy.window_size
        routed = heads - local
        of = [head // (heads // run.keys.shape[1]) for head in range(local, heads)]  # the key-value head of each routed one
        q = _normalised(run.q[:, local:])
        mine, theirs = self._nearest(q), self._of_keys(run, of)
        if run.training:
            self._note(q, mine)
            self._note(_normalised(run.keys[:, of, run.first :]), theirs[:, :, run.first :])
        # Keys by cluster, and in each in the order of the text.
        length = run.keys.shape[2]
        places, order = (theirs * length + torch.arange(length, device=theirs.device)).sort(-1)
        index = torch.arange(run.first, length, device=theirs.device)
        ends = torch.searchsorted(places, mine * length + index, right=True)
        begins = torch.searchsorted(places, mine * length)
        once = count * width > length  # keys are normalised before they are copied, and not each copy of them
        given = _normalised(run.keys) if once else run.keys
        together = count if torch.is_grad_enabled() and run.q.requires_grad else at_once(b * routed * width * d)
        for row in range(0, count, together):
            rows = slice(row, min(row + together, count))
            back = ends[:, :, rows, None] - 1 - torch.arange(min(width, length), device=ends.device)
            there = back >= begins[:, :, rows, None]
            chosen = order.gather(2, back.clamp(min=0).flatten(2)).view_as(back)
            keys, values = (_chosen(x, chosen, of) for x in (given, run.values))
            keys = (keys if once else _normalised(keys)).to(values.dtype)
            out, lse = run.attend(*(x.flatten(0, 2)[:, None] for x in (q[:, :, rows, None], keys, values, there[..., None, :])))
            out, lse = out.view(b, routed, -1, out.shape[-1]), lse.view(b, routed, -1)
            yield rows, pad(out, (0, 0, 0, 0, local, 0)), pad(lse, (0, 0, local, 0), value=-torch.inf)

    @torch.no_grad()
    def _nearest(self, x: Tensor) -> Tensor:
        """The cluster of each normalised vector x [B, R, n, D], [B, R, n]."""
        with torch.autocast(x.device.type, enabled=False):
            return (x.detach() @ self.layer.weights["routing.centroids"].to(x.dtype).mT).argmax(-1)

    def _of_keys(self, run: QueryRun, of: list[int]) -> Tensor:
        """The clusters of all keys, [B, R, S]; those of keys that were read before are kept."""
        known = run.memo.get("clusters")
        begin = 0 if known is None else known.shape[2]
        new = self._nearest(_normalised(run.keys[:, of, begin:]))
        found = new if known is None else torch.cat([known, new], 2)
        run.memo["clusters"] = found
        return found

    @torch.no_grad()
    def _note(self, x: Tensor, clusters: Tensor) -> None:
        """Add normalised vectors x [B, R, n, D] to what the step has read of their clusters [B, R, n]."""
        sums, counts = (self.layer.weights[f"routing.{name}"] for name in ("sums", "counts"))
        member = one_hot(clusters, self.policy.num_clusters).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            sums.add_(torch.einsum("brnc,brnd->rcd", member, x.detach()).to(sums.dtype))
        counts.add_(member.sum((0, 2)).to(counts.dtype))


def _normalised(x: Tensor) -> Tensor:
    """x [..., D] with mean 0 and variance 1, in float32 at least."""
    return layer_norm(x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1:], eps=_EPSILON)


def _chosen(x: Tensor, index: Tensor, of: list[int]) -> Tensor:
    """The rows `index` [B, R, n, P] of x [B, K, S, D], those of each head from the key-value head that `of` names: [B, R, n, P, D]."""
    some = [
        row[head].index_select(0, chosen.flatten())
        for row, each in zip(x, index, strict=True)
        for head, chosen in zip(of, each, strict=True)
    ]
    return torch.stack(some).view(*index.shape, x.shape[-1])


METHOD = Routing
EXAMPLES = (
    Routing(num_clusters=3, window_size=6),
    Routing(num_clusters=1, window_size=16),
    Routing(num_clusters=5, window_size=2, decay=0.5),
)
NEUTRAL = ()
BAD = ({"num_clusters": 0}, {"window_size": 0}, {"decay": 1.0}, {"decay": -0.1})
