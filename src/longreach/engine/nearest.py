"""Attention of each query to the states nearest to it, found exactly; states serve as keys and as values, for all heads and layers."""

import torch
from torch import Tensor

_NUMBERS = 1 << 22  # that are held at a time: scores, or states of chosen keys


def attend_nearest(q: Tensor, states: Tensor, seen: Tensor | None, counts: Tensor) -> Tensor:
    """Sums of states [B, N, E], weighted by the softmax of their products with queries, over the states with the largest ones.

    Args: q: [B, N, E], scaled, float32 at least. states: [B, S, E]. seen: [B, S] bool; None: all. counts: how many states the queries of
    each text see, [B] (>= 1).
    """
    batch, _, size = q.shape
    most = min(int(counts.max()), states.shape[1])
    with torch.no_grad():
        chosen = nearest(q.detach(), states.detach(), seen, most)
    at = torch.arange(batch, device=q.device)[:, None, None]
    beyond = torch.arange(most, device=q.device) >= counts.to(q.device)[:, None, None]
    parts = []
    for some, index in zip(*(x.split(max(1, _NUMBERS // (batch * most * size)), dim=1) for x in (q, chosen)), strict=True):
        found = states[at, index].to(q.dtype)
        hidden = beyond if seen is None else beyond | ~seen[at, index]
        logits = (found @ some[..., None])[..., 0].masked_fill(hidden, torch.finfo(q.dtype).min)
        parts.append((logits.softmax(-1)[..., None, :] @ found)[..., 0, :])
    return torch.cat(parts, 1) if parts else q


def nearest(q: Tensor, states: Tensor, seen: Tensor | None, count: int) -> Tensor:
    """The indices [B, N, count] of the states [B, S, E] with the largest products with queries [B, N, E], the largest first."""
    batch, _, size = q.shape
    keys = max(1, _NUMBERS // (batch * size))
    return torch.cat([_nearest(some, states, seen, count, keys) for some in q.split(max(1, _NUMBERS // (batch * keys)), dim=1)], 1)


def _nearest(q: Tensor, states: Tensor, seen: Tensor | None, count: int, keys: int) -> Tensor:
    best = q.new_empty(*q.shape[:2], 0)
    index = torch.empty_like(best, dtype=torch.long)
    for begin in range(0, states.shape[1], keys):
        some = states[:, begin : begin + keys].to(q.dtype)
        scores = q @ some.transpose(1, 2)
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None, begin : begin + keys], -torch.inf)
        scores, places = scores.topk(min(count, scores.shape[2]), dim=2)
        scores, places = torch.cat([best, scores], 2), torch.cat([index, places + begin], 2)
        best, top = scores.topk(min(count, scores.shape[2]), dim=2)
        index = places.gather(2, top)
    return index
