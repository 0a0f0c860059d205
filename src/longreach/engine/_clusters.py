"""The keys of a prompt in groups, of which each query sees those that it chooses."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longreach.core.bands import TRUE
from longreach.core.memory import Clustered
from longreach.engine._channels import Change, Channels
from longreach.engine._cuts import CutStore, Part, State, StoreRow
from longreach.engine._fused import attend

_QUERIES = 32  # that are computed at once, over the groups that any of them chose
_WHOLE = 0.4  # share of the keys from which on a mask over all of them is faster than a copy of those that are needed (measured on a CPU)


@dataclass(frozen=True, kw_only=True)
class Groups:
    """k, v: [B, K, n, D], group by group. of: the group of each, [B, K, n]. sizes: [B, K, c]. centroids: [B, K, c, D]. bar: [B]."""

    k: Tensor
    v: Tensor
    of: Tensor
    sizes: Tensor
    centroids: Tensor
    bar: Tensor


@dataclass(frozen=True, kw_only=True)
class ClusteredState(State):
    """groups: None before the prompt has ended, and where it was too short."""

    groups: Groups | None


class ClusteredStore(CutStore[Clustered, ClusteredState]):
    """Groups of one prompt."""

    def empty(self, like: dict[object, Tensor], start: int) -> ClusteredState:
        """Nothing."""
        return ClusteredState(upto=start, groups=None)

    def taken(self, row: StoreRow[ClusteredState], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> ClusteredState:
        """The prompt but for its last tokens, in groups."""
        state, chooser = row.state, self.view.chooser
        upto = slot - chooser.observe
        if state.groups is not None or upto <= state.upto:  # tokens after the prompt were taken back, or it is short
            return state
        part = slice(state.upto - oldest, upto - oldest)
        keys, values = (window.view(name)[:, :, part] for name in (TRUE, "v"))
        with torch.no_grad():
            queries = torch.cat([run.between(upto, slot).q for run in row.runs if run.end > upto], 2)
            group, centroids, bar = chooser.cluster(keys, queries, self.scale)
            of, order = group.sort(dim=-1, stable=True)
            sizes = torch.zeros(centroids.shape[:3], dtype=torch.long, device=of.device).scatter_add(2, of, torch.ones_like(of))
        k, v = (x.gather(2, order[..., None].expand(-1, -1, -1, x.shape[3])) for x in (keys, values))
        return ClusteredState(upto=upto, groups=Groups(k=k, v=v, of=of, sizes=sizes, centroids=centroids, bar=bar))

    def pieces(self, state: ClusteredState, q: Tensor, turned: Any) -> Iterator[Part]:
        """The groups that each query chooses."""
        if state.groups is None:
            return
        for first in range(0, q.shape[2], _QUERIES):
            rows = slice(first, min(first + _QUERIES, q.shape[2]))
            yield from self._piece(state.groups, q[:, :, rows], rows)

    def _piece(self, groups: Groups, q: Tensor, rows: slice) -> Iterator[Part]:
        b, h, t, _ = q.shape
        kv_heads, tokens = groups.k.shape[1:3]
        k, v, of, index = groups.k, groups.v, groups.of, None
        with torch.no_grad():
            chosen = self.view.chooser.select(q, groups.centroids, groups.sizes, groups.bar, self.scale)
            chosen = chosen.view(b, kv_heads, h // kv_heads * t, -1)  # heads that share keys share the copy of what they chose
            needed = chosen.any(2).gather(2, of)
            counts = needed.sum(2)
            most = int(counts.max())
            if not most:
                return
            if most <= _WHOLE * tokens:
                index = _places(needed, most)
                of = of.gather(2, index)
            seen = chosen.gather(3, of[:, :, None].expand(-1, -1, chosen.shape[2], -1))
            if index is not None:
                seen &= (torch.arange(most, device=q.device) < counts[..., None])[:, :, None]
        if index is not None:
            line = (torch.arange(b * kv_heads, device=q.device).view(b, kv_heads, 1) * tokens + index).flatten()
            k, v = (x.flatten(0, 2).index_select(0, line).view(b, kv_heads, most, -1) for x in (k, v))
        yield (rows, *attend(q, k, v, scale=self.scale, mask=seen.view(b, h, t, -1), softcap=self.softcap))

    def changed(self, state: ClusteredState, change: Change) -> ClusteredState:
        """Every tensor changed."""
        if state.groups is None:
            return state
        return replace(state, groups=Groups(**{name: change(tensor) for name, tensor in vars(state.groups).items()}))


def _places(needed: Tensor, most: int) -> Tensor:
    """The places of what is needed, of [B, K, n], one after another, [B, K, most]; behind them 0."""
    place = torch.where(needed, needed.cumsum(2) - 1, most)  # the last place is for all that is not needed
    index = torch.zeros(*needed.shape[:2], most + 1, dtype=torch.long, device=needed.device)
    return index.scatter(2, place, torch.arange(needed.shape[2], device=needed.device).expand_as(place))[:, :, :most]
