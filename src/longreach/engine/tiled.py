"""Exact attention tile by tile with a running softmax: no logits exist but those of one tile, forwards or backwards.

Source: arXiv:2112.05682 for the sums, arXiv:2205.14135 (section 3 and appendix B) for the gradients from them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

Seen = Callable[[slice, slice], Tensor | None]  # of some queries and keys: [B | 1, 1 | H, T, S], bool, or added to logits; None: all


@dataclass(frozen=True, eq=False)
class Tiling:
    """Args: sizes: how many queries and keys meet at a time. seen: who sees whom. scale: of logits. softcap: on them, before `seen`."""

    sizes: tuple[int, int]
    seen: Seen
    scale: float
    softcap: float | None = None

    def tiles(self, queries: int, keys: int) -> Iterator[tuple[slice, slice, Tensor | None]]:
        """The tiles in which somebody sees somebody, with who."""
        for q in range(0, queries, self.sizes[0]):
            for k in range(0, keys, self.sizes[1]):
                rows, columns = slice(q, min(q + self.sizes[0], queries)), slice(k, min(k + self.sizes[1], keys))
                seen = self.seen(rows, columns)
                if seen is None or seen.dtype != torch.bool:
                    yield rows, columns, seen
                elif bool(seen.any()):
                    yield rows, columns, None if bool(seen.all()) else seen

    def logits(self, q: Tensor, k: Tensor, seen: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """[B, K, G, T, S] of q [B, K, G, T, D] and k [B, K, S, D], and what the soft cap made them before they were masked."""
        batch, kv_heads, group, queries, size = q.shape
        found = (q.reshape(batch, kv_heads, group * queries, size) @ k.transpose(2, 3)).unflatten(2, (group, queries)).mul_(self.scale)
        capped = None
        if self.softcap is not None:
            found = capped = found.div_(self.softcap).tanh_().mul_(self.softcap)
        if seen is not None:
            seen = seen[:, :, None] if seen.shape[1] == 1 else seen.unflatten(1, (kv_heads, group))
            found = found.masked_fill(~seen, -torch.inf) if seen.dtype == torch.bool else found + seen
        return found, capped


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, tiling: Tiling, sinks: Tensor | None = None) -> Tensor:
    """q [B, H, T, D], k [B, K, S, D] and v [B, K, S, E] -> [B, H, T, E]. A query that sees nothing gets zeros.

    Args: sinks: [H], logits that take weight and give nothing. Sums are in float32 at least.
    """
    return cast(Tensor, _Tiled.apply(q, k, v, sinks, tiling))


class _Tiled(Function):
    """Saves what attention reads, what it gives, and the log of the sum of each query's weights."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, sinks: Tensor | None, tiling: Tiling) -> Tensor:
        wide = torch.promote_types(q.dtype, torch.float32)
        grouped = q.unflatten(1, (k.shape[1], -1))
        shape = grouped.shape[:4]
        largest = q.new_full((*shape, 1), -torch.inf, dtype=wide)
        weight = torch.zeros_like(largest)
        if sinks is not None:
            largest.copy_(sinks.view(1, *shape[1:3], 1, 1))
            weight.fill_(1)
        out = q.new_zeros((*shape, v.shape[-1]), dtype=wide)
        for rows, columns, seen in tiling.tiles(q.shape[2], k.shape[2]):
            logits, _ = tiling.logits(grouped[:, :, :, rows].to(wide), k[:, :, columns].to(wide), seen)
            before = largest[:, :, :, rows]
            now = torch.maximum(before, logits.amax(-1, keepdim=True))
            base = now.masked_fill(now == -torch.inf, 0)  # of a query that has seen nothing yet
            shrink = (before - base).exp()
            weights = logits.sub_(base).exp_()
            weight[:, :, :, rows] = weight[:, :, :, rows] * shrink + weights.sum(-1, keepdim=True)
            out[:, :, :, rows] = out[:, :, :, rows] * shrink + _times(weights, v[:, :, columns].to(wide))
            largest[:, :, :, rows] = now
        out /= weight.masked_fill(weight == 0, 1)
        ctx.save_for_backward(q, k, v, sinks, out, weight.log() + largest)
        ctx.tiling = tiling
        return out.flatten(1, 2).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, sinks, out, log_sum = ctx.saved_tensors
        tiling: Tiling = ctx.tiling
        wide = out.dtype
        grouped, grad = q.unflatten(1, (k.shape[1], -1)), grad.unflatten(1, (k.shape[1], -1)).to(wide)
        inner = (grad * out).sum(-1, keepdim=True)
        log_sum = log_sum.masked_fill(log_sum == -torch.inf, torch.inf)  # a query that sees nothing has no weights
        dq, dk, dv = (torch.zeros_like(x, dtype=wide) for x in (grouped, k, v))
        for rows, columns, seen in tiling.tiles(q.shape[2], k.shape[2]):
            queries, keys = grouped[:, :, :, rows].to(wide), k[:, :, columns].to(wide)
            logits, capped = tiling.logits(queries, keys, seen)
            weights = logits.sub(log_sum[:, :, :, rows]).exp_()
            part = grad[:, :, :, rows]
            dv[:, :, columns] += weights.flatten(2, 3).transpose(2, 3) @ part.flatten(2, 3)
            dlogits = weights.mul_(_times(part, v[:, :, columns].to(wide).transpose(2, 3)).sub_(inner[:, :, :, rows]))
            if tiling.softcap is not None and capped is not None:
                dlogits = dlogits * (1 - (capped / tiling.softcap).square())
            dq[:, :, :, rows] += _times(dlogits, keys) * tiling.scale
            dk[:, :, columns] += dlogits.flatten(2, 3).transpose(2, 3) @ queries.flatten(2, 3) * tiling.scale
        dsinks = None
        if sinks is not None:
            taken = (sinks.to(wide).view(1, k.shape[1], -1, 1, 1) - log_sum).exp()
            dsinks = -(taken * inner).sum((0, 3, 4)).flatten().to(sinks.dtype)
        return dq.flatten(1, 2).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), dsinks, None


def _times(weights: Tensor, values: Tensor) -> Tensor:
    """[B, K, G, T, S] @ [B, K, S, E]."""
    return (weights.flatten(2, 3) @ values).unflatten(2, weights.shape[2:4])
