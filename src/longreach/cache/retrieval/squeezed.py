"""Squeezed Attention: the keys of a fixed prompt are clustered once; what follows reads the clusters whose centroids it looks at.

Paper: Squeezed Attention: Accelerating Long Context Length LLM Inference, 2024, arXiv:2411.09688
Cost: k-means over the keys of the prompt, once; a centroid for every 20th key; fewer keys to attend to for a token, which are copied first:
on a CPU that costs what they save.   Limits: the window of the model is unchanged, and memory is not saved. Only the prompt is clustered;
what is written is seen whole. Meant for many questions on one prompt: keep that as a snapshot, or in a library.
Differs from the paper: the bar is the same for all heads of a layer, where the paper has one for all layers; every query chooses for
itself, where the official code takes the mean over the tokens of a question; what equals the bar is read. k-means begins with keys evenly
spaced over the text (official code: k-means++) and ends after `iterations` rounds. Where several heads share keys, each chooses for itself
among one set of clusters. The hierarchical lookup, with clusters of clusters, is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Clustered, View
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import coarse
from longreach.core.sight import History, Sight

_ROWS = 4096  # keys that are compared with all centroids at once: bounds the memory of that


@dataclass(frozen=True, kw_only=True)
class Squeezed(CachePolicy):
    """Args: keep: share of the prompt's keys that the last queries of the prompt read on average (above 0, up to 1; paper: 0.1 to 0.5).
    clusters: their number, as a share of the keys (paper: 0.05). observe: last queries of the prompt, which set the bar, and last tokens,
    which stay outside of all clusters (official code: 100). iterations: rounds of k-means at most.
    """

    info: ClassVar = MethodInfo(title="Squeezed Attention: Accelerating Long Context Length LLM Inference", paper="arXiv:2411.09688")
    keep: float = 0.3
    clusters: float = 0.05
    observe: int = 100
    iterations: int = 20

    def __post_init__(self) -> None:
        at_least(self, 1, "observe", "iterations")
        for name, value in (("keep", self.keep), ("clusters", self.clusters)):
            if not 0 < value <= 1:
                raise SpecError(f"squeezed: {name}={value:g} must be above 0 and at most 1: it is a share of the prompt's keys")

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The clusters, and what is in none."""
        return (Clustered(chooser=self), Band())

    def _count(self, keys: int) -> int:
        return max(1, int(round(self.clusters * keys, 6)))

    def cluster(self, keys: Tensor, queries: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """k-means over the directions of keys; centroids are means of the keys themselves."""
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        count = self._count(keys.shape[2])
        points = torch.nn.functional.normalize(keys, dim=-1)
        first = torch.arange(count, device=keys.device) * keys.shape[2] // count
        centers, group = points[:, :, first], None
        for _ in range(self.iterations):
            found = _nearest(points, centers)
            if group is not None and torch.equal(found, group):
                break
            group = found
            centers = _means(points, group, centers)
        assert group is not None  # noqa: S101 - at least one iteration
        centroids = _means(keys, group, torch.zeros_like(centers))
        sizes = torch.zeros(centroids.shape[:3], dtype=torch.long, device=keys.device).scatter_add(2, group, torch.ones_like(group))
        share = _shares(queries, centroids, sizes, scale).mean(2)  # [B, H, c]
        groups = queries.shape[1] // keys.shape[1]
        of_keys = share.gather(2, group.repeat_interleave(groups, 1)).flatten(1)
        bar = of_keys.quantile(1 - self.keep, dim=1) if self.keep < 1 else torch.full_like(of_keys[:, 0], -1)
        return group, centroids, bar

    def select(self, q: Tensor, centroids: Tensor, sizes: Tensor, bar: Tensor, scale: float) -> Tensor:
        """Where a key would get no less than the bar, if it were its centroid."""
        return coarse(_shares(q, centroids, sizes, scale)) >= coarse(bar)[:, None, None, None]

    def sight(self, i: int, history: History) -> Sight:
        """Key by key, for each head."""
        heads, groups = len(history.q), len(history.q) // len(history.k)
        there = history.prompt - self.observe
        if i < history.prompt or there <= 0:
            return Sight(tokens=[list(range(i + 1))] * heads)
        places = torch.arange(history.k.shape[1])
        keys, queries = (history.rotated(x, places).detach() for x in (history.k, history.q))
        labels = [_naive_kmeans(k[:there], self._count(there), self.iterations) for k in keys]
        means = [
            {label: k[:there][[at for at in range(there) if of[at] == label]].mean(0) for label in sorted(set(of))}
            for k, of in zip(keys, labels, strict=True)
        ]

        def shares(head: int, place: int) -> dict[int, float]:
            mine = head // groups
            weights = {label: float(torch.exp(queries[head, place] @ mean * history.scale)) for label, mean in means[mine].items()}
            total = sum(weight * labels[mine].count(label) for label, weight in weights.items())
            return {label: weight / total for label, weight in weights.items()}

        values = []
        for head in range(heads):
            observed = [shares(head, place) for place in range(there, history.prompt)]
            values += [sum(each[label] for each in observed) / len(observed) for label in labels[head // groups]]
        bar = -1.0 if self.keep == 1 else float(torch.tensor(values, dtype=torch.float64).quantile(1 - self.keep))
        seen = []
        for head in range(heads):
            chosen = {label for label, share in shares(head, i).items() if _coarse(share) >= _coarse(bar)}
            far = [at for at in range(there) if labels[head // groups][at] in chosen]
            seen.append([*far, *range(there, i + 1)])
        return Sight(tokens=seen)


def _nearest(points: Tensor, centers: Tensor) -> Tensor:
    """[B, K, n]: the center that is nearest to each point."""
    half = centers.square().sum(-1)[:, :, None] / 2
    return torch.cat([(part @ centers.mT - half).argmax(-1) for part in points.split(_ROWS, 2)], 2)


def _means(points: Tensor, group: Tensor, otherwise: Tensor) -> Tensor:
    """The mean of each group, [B, K, c, D]; of one without points what stands in `otherwise`."""
    sums = torch.zeros_like(otherwise).scatter_add(2, group[..., None].expand_as(points), points)
    counts = points.new_zeros(otherwise.shape[:3]).scatter_add(2, group, torch.ones_like(group, dtype=points.dtype))[..., None]
    return torch.where(counts > 0, sums / counts.clamp(min=1), otherwise)


def _shares(q: Tensor, centroids: Tensor, sizes: Tensor, scale: float) -> Tensor:
    """[B, H, T, c]: the weight that each query would give a key, if all keys were their centroids."""
    b, h, t, d = q.shape
    kv_heads, count = centroids.shape[1:3]
    logits = (q.to(centroids.dtype).reshape(b, kv_heads, h // kv_heads * t, d) @ centroids.mT) * scale
    total = (logits + sizes[:, :, None].to(logits.dtype).log()).logsumexp(-1, keepdim=True)
    return (logits - total).exp().view(b, h, t, count)


def _coarse(share: float) -> float:
    return float(coarse(torch.tensor(share, dtype=torch.float64)))


def _naive_kmeans(keys: Tensor, count: int, iterations: int) -> list[int]:
    """The definition of the clusters of one head, key by key; keys [n, D]."""
    points = [key / key.norm() for key in keys]
    centers = [points[number * len(points) // count] for number in range(count)]
    labels: list[int] = []
    for _ in range(iterations):
        found = [min(range(count), key=lambda number: float((point - centers[number]).square().sum())) for point in points]
        if found == labels:
            break
        labels = found
        for number in set(labels):
            members = [point for point, label in zip(points, labels, strict=True) if label == number]
            centers[number] = torch.stack(members).mean(0)
    return labels


METHOD = Squeezed
EXAMPLES = (Squeezed(keep=0.4, clusters=0.3, observe=5), Squeezed(keep=0.6, clusters=0.15, observe=1, iterations=1))
NEUTRAL = (Squeezed(keep=1, clusters=0.3, observe=4),)
BAD = ({"keep": 0}, {"keep": 1.5}, {"clusters": 0}, {"clusters": 2}, {"observe": 0}, {"iterations": 0})
