"""Bands of which each query head sees only the keys with the largest inner products."""

import torch
from torch import Tensor

from longreach.core.bands import Band
from longreach.core.ranking import ranking
from longreach.engine._attend import Options, Pieces, pair_mask
from longreach.engine._pieces import Piece
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step

_LOGITS = 2**23  # that are alive at once
_ROWS = 256  # queries at once


def top_pieces(layer: BandLayer, step: Step, band: Band, q: Tensor, keys: Tensor, slot: int, options: Options, upto: int = 0) -> Pieces:
    """`recent_pieces` of a band with a `top`."""
    values, oldest = layer.recent.view("v"), layer.oldest
    first = max(oldest, step.start_min + band.after, upto)
    for begin, end in _runs(slot, slot + q.shape[2], band, step, q.shape[0] * q.shape[1]):
        last = _last(end - 1, band, step)
        if last <= first:
            continue
        rows, part = slice(begin - slot, end - slot), slice(first - oldest, last - oldest)
        seen = pair_mask(Piece(begin, end, first, last, "masked"), band, step)
        yield rows, *_attend(q[:, :, rows], keys[:, :, part], values[:, :, part], seen, band.top or 0, options)


def _last(query: int, band: Band, step: Step) -> int:
    """The slot after the last key that a query may meet."""
    if step.skips:
        return query + 1
    return min(query + 1, (max(0, query - step.start_min) // band.chunk - band.lo + 1) * band.chunk + step.start_min)


def _runs(begin: int, end: int, band: Band, step: Step, heads: int) -> list[tuple[int, int]]:
    """Queries that are computed at once, [begin, end) in slots: few where there are many keys."""
    rows = max(1, min(_ROWS, _LOGITS // max(1, heads * (_last(end - 1, band, step) - step.start_min))))
    return [(start, min(start + rows, end)) for start in range(begin, end, rows)]


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, top: int, options: Options) -> tuple[Tensor, Tensor]:
    """Output [B, H, T, D] and log-sum-exp [B, H, T] over the `top` best of the keys that are seen, [B | 1, 1, T, n]."""
    b, h, t, d = q.shape
    groups, n = k.shape[1:3]
    products = (q.to(v.dtype).reshape(b, groups, h // groups * t, d) @ k.mT).view(b, h, t, n)
    products = products.to(torch.promote_types(products.dtype, torch.float32))
    index = torch.arange(n, device=q.device).expand(products.shape).masked_fill(~seen, -1)
    best = ranking(products.detach(), index).topk(min(top, n), dim=-1).indices
    logits = products.gather(-1, best) * options.scale
    if options.softcap is not None:
        logits = options.softcap * torch.tanh(logits / options.softcap)
    logits = logits.masked_fill(index.gather(-1, best) < 0, float("-inf"))
    lse = logits.logsumexp(-1)
    # A query that sees nothing has lse -inf; subtracting 0 there keeps its weights, and its gradient, at 0 instead of nan.
    weights = torch.exp(logits - lse.masked_fill(lse == float("-inf"), 0.0)[..., None])
    spread = torch.zeros_like(products).scatter(-1, best, weights).to(v.dtype)
    out = spread.view(b, groups, h // groups * t, n) @ v
    return out.view(b, h, t, v.shape[-1]), lse
