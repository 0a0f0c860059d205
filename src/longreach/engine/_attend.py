"""Computes bands on what a layer keeps: piece by piece, each with its log-sum-exp."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.core.bands import Band
from longreach.core.errors import LongreachError
from longreach.engine._added import Added
from longreach.engine._fused import attend
from longreach.engine._pieces import Piece, cut, cut_before, cut_chunks, ragged_apart, tiles
from longreach.engine._store import AGES, BandLayer
from longreach.engine._stream import Step

Pieces = Iterator[tuple[slice, Tensor, Tensor]]  # rows of the queries, their output [B, H, n, D] and log-sum-exp [B, H, n]


@dataclass(frozen=True, slots=True)
class Options:
    """Of a layer's softmax. Args: sinks: learned logits [H] that take weight and give nothing. added: what gives logits a bias, if any.
    training: whether the model is in training.
    """

    scale: float
    softcap: float | None
    sinks: Tensor | None
    added: Added | None
    training: bool = False


def recent_pieces(layer: BandLayer, step: Step, band: Band, q: Tensor, keys: Tensor, slot: int, options: Options, upto: int = 0) -> Pieces:
    """The band of rotated queries q [B, H, T, D], the first of which has the slot `slot`, and rotated keys [B, K, n, D].

    upto: slot before which tokens are no longer the window's.
    """
    values, oldest = layer.recent.view("v"), layer.oldest
    first = max(oldest, step.start_min + band.after, upto)
    ragged = step.start_max + band.after if step.start_max != step.start_min else 0
    if step.valid is not None:
        ragged = step.end
    if step.skips and not band.endless:  # who meets whom only the indices tell
        pieces = cut(slot, slot + q.shape[2], 0, None, first, step.end)
    else:
        pieces = _cut(band, slot, slot + q.shape[2], first, ragged, step)
    for piece in pieces if options.added is None else tiles(pieces):
        rows = slice(piece.q0 - slot, piece.q1 - slot)
        part = slice(piece.k0 - oldest, piece.k1 - oldest)
        bias = None
        if options.added is not None:
            queries, indices = (_indices(step, *ends) for ends in ((piece.q0, piece.q1), (piece.k0, piece.k1)))
            bias = options.added.bias(band, queries, indices, _ages(layer, slice(piece.q0 - oldest, piece.q1 - oldest), part))
        mask = pair_mask(piece, band, step) if piece.shape == "masked" else None
        out, lse = _piece(piece, q[:, :, rows], keys[:, :, part], values[:, :, part], mask, bias, options)
        yield rows, out, lse


def _indices(step: Step, begin: int, end: int) -> Tensor:
    """Of the slots [begin, end): the index of the token in its row, [B | 1, n].

    Raises: LongreachError where padding stands inside a row, for of tokens read before only the slots are known.
    """
    if step.valid is not None:
        raise LongreachError("padding inside a text cannot go with a method that biases logits; pad on the left, or pass texts one by one")
    if begin >= step.first:  # also where training lets positions skip
        return step.t[:, begin - step.first : end - step.first]
    start = step.start[:1] if step.start_min == step.start_max else step.start
    before = torch.arange(begin, min(end, step.first), device=start.device) - start[:, None]
    if end <= step.first:
        return before
    now = step.t[:, : end - step.first]
    rows = max(len(before), len(now))
    return torch.cat([before.expand(rows, -1), now.expand(rows, -1)], 1)


def _ages(layer: BandLayer, queries: slice, keys: slice) -> tuple[Tensor, Tensor] | None:
    ages = layer.recent.data.get(AGES)
    if ages is None:
        return None
    live = layer.recent.view(AGES)
    return live[:, :, queries], live[:, :, keys]


def _cut(band: Band, q0: int, q1: int, first: int, ragged: int, step: Step) -> Iterator[Piece]:
    if band.chunk > 1:
        return ragged_apart(cut_chunks(q0, q1, band.lo, band.hi, band.chunk, step.start_min, first), ragged)
    if band.before is not None:
        return ragged_apart(cut_before(q0, q1, step.start_min + band.before, first), ragged)
    return cut(q0, q1, band.lo, band.hi, first, ragged)


def pair_mask(piece: Piece, band: Band, step: Step) -> Tensor:
    """Which queries and keys of a piece meet, [B | 1, 1, q1 - q0, k1 - k0] bool."""
    i = torch.arange(piece.q0, piece.q1, device=step.t.device)[:, None]
    j = torch.arange(piece.k0, piece.k1, device=step.t.device)
    start = step.start[:, None, None]
    # Counted from each row's first real token where positions skip, else in slots; the distance is the same.
    query, key = (step.t[:, piece.q0 : piece.q1, None], step.t[:, None, piece.k0 : piece.k1]) if step.skips else (i - start, j - start)
    between = query - key if band.chunk == 1 else query // band.chunk - key // band.chunk
    seen = (between >= band.lo) & (j <= i) & (j >= start + band.after)
    if band.hi is not None:
        seen = seen & (between <= band.hi)
    if band.before is not None:
        seen = seen & (j < start + band.before)
    if step.valid is not None:
        seen = seen & step.valid[:, None, piece.k0 : piece.k1]
    return seen[:, None]


def sink_pieces(layer: BandLayer, step: Step, band: Band, q: Tensor, slot: int, options: Options) -> Pieces:
    """The band of rotated queries q [B, H, T, D], the first of which has the slot `slot`, and each row's first tokens."""
    count = min(band.sinks or 0, step.end - step.start_min)
    if count <= 0:
        return
    keys, values = layer.first[band.keys][:, :, :count], layer.first["v"][:, :, :count]
    last = slot + q.shape[2] - 1
    mask = bias = None
    settled = slot - (step.start_max + count - 1) >= band.lo and (band.hi is None or last - step.start_min <= band.hi)
    if not settled or step.valid is not None or step.skips:
        j = step.start[:, None, None] + torch.arange(count, device=q.device)
        distance = torch.arange(slot, last + 1, device=q.device)[:, None] - j
        if step.skips:  # every token is a new one, so that slots number their indices
            distance = step.t[:, slot : last + 1, None] - step.t[:, None, :count]
        seen = distance >= band.lo
        if band.hi is not None:
            seen = seen & (distance <= band.hi)
        if step.valid is not None:
            there = step.valid.gather(1, j[:, 0].clamp(max=step.end - 1))
            seen = seen & there[:, None]
        if not bool(seen.any()):
            return
        mask = seen[:, None].expand(q.shape[0], -1, -1, -1)
    if options.added is not None:
        ages = None
        if AGES in layer.first:
            mine = layer.recent.view(AGES)[:, :, slot - layer.oldest : last + 1 - layer.oldest]
            ages = mine, layer.first[AGES][:, :, :count]
        bias = options.added.bias(band, _indices(step, slot, last + 1), torch.arange(count, device=q.device)[None], ages)
    yield (slice(0, q.shape[2]), *attend(q, keys, values, scale=options.scale, mask=mask, bias=bias, softcap=options.softcap))


def _piece(
    piece: Piece, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, bias: Tensor | None, options: Options
) -> tuple[Tensor, Tensor]:
    scale, softcap = options.scale, options.softcap
    if piece.shape == "upper":  # reversed, the window's far edge is a causal edge
        out, lse = attend(q.flip(2), k.flip(2), v.flip(2), scale=scale, causal=True, softcap=softcap)
        return out.flip(2), lse.flip(2)
    mask = None if mask is None else mask.expand(q.shape[0], -1, -1, -1)
    return attend(q, k, v, scale=scale, causal=piece.shape == "lower", mask=mask, bias=bias, softcap=softcap)
