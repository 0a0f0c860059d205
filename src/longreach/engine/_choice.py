"""Attention to chunks that every query and head chooses for itself, in time linear in the text: no query is compared with a key that it
did not choose, and queries that chose the same chunk are computed together.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.core.bands import Computed, PositionMap, Selection, Summarizer
from longreach.core.errors import LongreachError
from longreach.engine._fused import attend
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step

_ROWS = 256  # queries computed at once: bounds the memory of their scores and of their copies for each place
_LARGEST_TILE = 64  # queries that share a copy of their chunk
Turn = Callable[[Tensor, PositionMap, int, Step], Tensor]


@dataclass(frozen=True, slots=True)
class Summaries:
    """What sums up chunks of `size` tokens, whose queries and keys are turned by `positions`."""

    summarizer: Summarizer
    size: int
    positions: PositionMap

    @classmethod
    def of(cls, views: Iterable[object]) -> "Summaries | None":
        """Those that a layer with these views needs."""
        for view in views:
            if isinstance(view, Selection) and view.finders is None:
                return cls(view.chooser, view.chunk, view.keys)
            if isinstance(view, Computed) and view.summarizer is not None:
                return cls(view.summarizer, view.chunk, view.positions)
        return None


def extend_summaries(layer: BandLayer, step: Step, summaries: Summaries, turn: Turn, scale: float) -> None:
    """Summarise the chunks that the new tokens fill up.

    Raises: LongreachError where padding stands inside a row.
    """
    if step.valid is not None:
        raise LongreachError("padding inside a text cannot go with a method that chooses chunks; pad on the left, or pass texts one by one")
    full = [max(0, step.end - start) // summaries.size for start in step.start.tolist()]
    before = [max(0, step.first - start) // summaries.size for start in step.start.tolist()]
    if step.start_min == step.start_max:
        _summarize(layer, layer, step, summaries, turn, scale, slice(None), before[0], full[0])
        return
    for row, (done, count) in enumerate(zip(before, full, strict=True)):
        _summarize(layer, layer.row(row), step.row(row), summaries, turn, scale, slice(row, row + 1), done, count)


def _summarize(
    layer: BandLayer, part: BandLayer, step: Step, summaries: Summaries, turn: Turn, scale: float, rows: slice, done: int, count: int
) -> None:
    """Write the summaries of the chunks [done, count) of the rows `rows`, whose layer and step are `part` and `step`."""
    if done == count:
        return
    size = summaries.size
    begin, end = step.start_min + done * size, step.start_min + count * size
    late = layer.tokens - len(part.queries)
    q = part.queries.view("q")[:, :, begin - late : end - late]
    q = turn(q, summaries.positions, done * size, step)
    k, v = (part.recent.view(name)[:, :, begin - part.oldest : end - part.oldest] for name in (summaries.positions, "v"))
    q, k, v = (x.to(v.dtype).unflatten(2, (-1, size)) for x in (q, k, v))
    new = summaries.summarizer.summarize(q, k, v, scale)
    old = layer.summaries
    if old is None or count > old.shape[2]:
        batch = layer.recent.view("v").shape[0]
        grown = new.new_zeros(batch, new.shape[1], int(count * 1.5) + 1, new.shape[3])
        if old is not None:
            grown[:, :, : old.shape[2]] = old
        old = grown
    elif torch.is_grad_enabled():
        old = old.clone()  # writing in place would break gradients
    old[rows, :, done:count] = new
    layer.summaries = old


def chosen_pieces(
    layer: BandLayer,
    step: Step,
    selection: Selection,
    q: Tensor,
    turned: Callable[[PositionMap, slice], Tensor],
    slot: int,
    scale: float,
    softcap: float | None,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows, output and log-sum-exp of queries q [B, H, T, D], the first of which has the slot `slot`, over the chunks they choose.

    q is unrotated; turned: (map, rows) -> these rows of it, rotated.
    """
    size, start = selection.chunk, step.start_min
    own = (torch.arange(slot, slot + q.shape[2], device=q.device) - start).clamp(min=0) // size
    count = (own - selection.lo + 1).clamp(min=0)
    total = int(count[-1])
    if total == 0 or (layer.summaries is None and selection.finders is None):
        return
    begin, end = start - layer.oldest, start - layer.oldest + total * size
    keys, values = (layer.recent.view(name)[:, :, begin:end].unflatten(2, (total, size)) for name in (selection.keys, "v"))
    if selection.finders is not None:
        summaries = layer.recent.view(selection.finders)[:, :, begin:end].unflatten(2, (total, size))
    else:
        assert layer.summaries is not None  # noqa: S101 - made before
        summaries = layer.summaries[:, :, :total]
    for row in range(int((count == 0).sum()), q.shape[2], _ROWS):
        rows = slice(row, min(row + _ROWS, q.shape[2]))
        with torch.no_grad():
            chosen = selection.chooser.select(q[:, :, rows], summaries, count[rows])
        if not bool((chosen >= 0).any()):
            continue
        maps = [selection.queries[min(place, len(selection.queries) - 1)] for place in range(chosen.shape[3])]
        placed = torch.stack([turned(position, rows) for position in maps], 3)
        yield (rows, *attend_chosen(placed, keys, values, chosen, scale, softcap))


def attend_chosen(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    """Attention of q [B, H, T, D], or [B, H, T, P, D] turned for each place, over the chunks chosen [B, H | 1, T, P] (-1: none).

    k, v [B, K, n, C, D].
    """
    outs, lses = chosen_parts(q, k, v, chosen, scale, softcap)
    total = lses.logsumexp(-1)
    share = torch.exp(lses - total.masked_fill(total == float("-inf"), 0.0)[..., None])
    return (outs * share[..., None].to(outs.dtype)).sum(3), total


def chosen_parts(q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, scale: float, softcap: float | None) -> tuple[Tensor, Tensor]:
    """The same of each chunk by itself: output [B, H, T, P, D], 0 for none, and log-sum-exp [B, H, T, P]."""
    b, h, t, d = *q.shape[:3], q.shape[-1]
    kv_heads, n, places = k.shape[1], k.shape[2], chosen.shape[3]
    chosen = chosen.expand(b, h, t, places)
    # Sort the (query, place) pairs by key-value head and chunk, and give each of these whole tiles.
    home = (torch.arange(b * h, device=q.device) // (h // kv_heads)).view(b, h, 1, 1) * n + chosen
    pairs = (chosen >= 0).flatten().nonzero()[:, 0]
    sorted_home, order = home.flatten()[pairs].sort(stable=True)
    pairs = pairs[order]
    homes, sizes = sorted_home.unique_consecutive(return_counts=True)
    tile = _tile(len(pairs) / max(1, len(homes)))
    tiles = (sizes + tile - 1) // tile
    begins = tiles.cumsum(0) * tile - tiles * tile - sizes.cumsum(0) + sizes
    seat = torch.arange(len(pairs), device=q.device) + begins.repeat_interleave(sizes)
    of = homes.repeat_interleave(tiles)
    flat = q.reshape(-1, d)
    seated = flat.new_zeros(len(of) * tile, d).index_copy(0, seat, flat[pairs if q.ndim == 5 else pairs // places])
    batch, head, chunk = of // (kv_heads * n), of // n % kv_heads, of % n
    keys, values = k[batch, head, chunk][:, None], v[batch, head, chunk][:, None]
    out, lse = attend(seated.view(len(of), 1, tile, d), keys, values, scale=scale, softcap=softcap)
    # Back to the queries.
    outs = out.new_zeros(b * h * t * places, v.shape[-1]).index_copy(0, pairs, out.reshape(-1, v.shape[-1])[seat])
    lses = lse.new_full((b * h * t * places,), float("-inf")).index_copy(0, pairs, lse.reshape(-1)[seat])
    return outs.view(b, h, t, places, -1), lses.view(b, h, t, places)


def _tile(pairs: float) -> int:
    """Queries of a tile where a chunk has so many on average: a power of two, so that few seats stay empty."""
    return min(_LARGEST_TILE, 1 << max(0, round(math.log2(max(1.0, pairs)))))
