"""Computes bands on what a layer keeps: piece by piece, each with its log-sum-exp."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.core.bands import Band
from longreach.models._fused import attend
from longreach.models._pieces import Piece, cut, cut_before, cut_chunks, ragged_apart
from longreach.models._store import BandLayer
from longreach.models._stream import Step


@dataclass(frozen=True, slots=True)
class Options:
    """What an attention layer adds to its logits: scale, soft cap, learned sinks [H]."""

    scale: float
    softcap: float | None
    sinks: Tensor | None


Pieces = Iterator[tuple[slice, Tensor, Tensor]]  # rows of the queries, their output [B, H, n, D] and log-sum-exp [B, H, n]


def recent_pieces(
    layer: BandLayer, step: Step, band: Band, q: Tensor, keys: Tensor, slot: int, scale: float, softcap: float | None
) -> Pieces:
    """The band of rotated queries q [B, H, T, D], the first of which has the slot `slot`, and rotated keys [B, K, n, D]."""
    values, oldest = layer.recent.view("v"), layer.oldest
    first = max(oldest, step.start_min + band.after)
    ragged = step.start_max + band.after if step.start_max != step.start_min else 0
    if step.valid is not None:
        ragged = step.end
    for piece in _cut(band, slot, slot + q.shape[2], first, ragged, step):
        rows = slice(piece.q0 - slot, piece.q1 - slot)
        part = slice(piece.k0 - oldest, piece.k1 - oldest)
        out, lse = _piece(piece, q[:, :, rows], keys[:, :, part], values[:, :, part], _mask(piece, band, step), scale, softcap)
        yield rows, out, lse


def _cut(band: Band, q0: int, q1: int, first: int, ragged: int, step: Step) -> Iterator[Piece]:
    if band.chunk > 1:
        return ragged_apart(cut_chunks(q0, q1, band.lo, band.hi, band.chunk, step.start_min, first), ragged)
    if band.before is not None:
        return ragged_apart(cut_before(q0, q1, step.start_min + band.before, first), ragged)
    return cut(q0, q1, band.lo, band.hi, first, ragged)


def _mask(piece: Piece, band: Band, step: Step) -> Tensor | None:
    if piece.shape != "masked":
        return None
    i = torch.arange(piece.q0, piece.q1, device=step.t.device)[:, None]
    j = torch.arange(piece.k0, piece.k1, device=step.t.device)
    start = step.start[:, None, None]
    between = i - j if band.chunk == 1 else (i - start) // band.chunk - (j - start) // band.chunk
    seen = (between >= band.lo) & (j <= i) & (j >= start + band.after)
    if band.hi is not None:
        seen = seen & (between <= band.hi)
    if band.before is not None:
        seen = seen & (j < start + band.before)
    if step.valid is not None:
        seen = seen & step.valid[:, None, piece.k0 : piece.k1]
    return seen[:, None]


def sink_pieces(layer: BandLayer, step: Step, band: Band, q: Tensor, slot: int, scale: float, softcap: float | None) -> Pieces:
    """The band of rotated queries q [B, H, T, D], the first of which has the slot `slot`, and each row's first tokens."""
    count = min(band.sinks or 0, step.end - step.start_min)
    if count <= 0:
        return
    keys, values = layer.first[band.keys][:, :, :count], layer.first["v"][:, :, :count]
    last = slot + q.shape[2] - 1
    mask = None
    settled = slot - (step.start_max + count - 1) >= band.lo and (band.hi is None or last - step.start_min <= band.hi)
    if not settled or step.valid is not None:
        j = step.start[:, None, None] + torch.arange(count, device=q.device)
        distance = torch.arange(slot, last + 1, device=q.device)[:, None] - j
        seen = distance >= band.lo
        if band.hi is not None:
            seen = seen & (distance <= band.hi)
        if step.valid is not None:
            there = step.valid.gather(1, j[:, 0].clamp(max=step.end - 1))
            seen = seen & there[:, None]
        if not bool(seen.any()):
            return
        mask = seen[:, None].expand(q.shape[0], -1, -1, -1)
    yield (slice(0, q.shape[2]), *attend(q, keys, values, scale=scale, mask=mask, softcap=softcap))


def _piece(
    piece: Piece, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor]:
    if piece.shape == "upper":  # reversed, the window's far edge is a causal edge
        out, lse = attend(q.flip(2), k.flip(2), v.flip(2), scale=scale, causal=True, softcap=softcap)
        return out.flip(2), lse.flip(2)
    mask = None if mask is None else mask.expand(q.shape[0], -1, -1, -1)
    return attend(q, k, v, scale=scale, causal=piece.shape == "lower", mask=mask, softcap=softcap)
