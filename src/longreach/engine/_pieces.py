"""Cuts a band into pieces that fused attention computes without a mask.

A band `lo <= i - j <= hi` over consecutive queries and keys is, for a tile of queries, a rectangle that everyone sees between two
triangles. The lower triangle (causal edge) is what `is_causal` computes; the upper one (the window's far edge) is the same after
reversing queries and keys.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

MASKED_ROWS = 256  # queries of a tile that needs a mask: bounds the mask's memory
_TILE_ROWS, _TILE_KEYS = 128, 1024  # of a tile that needs a bias: one number for each head, query and key


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries [q0, q1) and keys [k0, k1), both in slots. `lower`/`upper`: square, the key's offset is at most / at least the query's.

    `masked`: only a mask made from the slots can tell.
    """

    q0: int
    q1: int
    k0: int
    k1: int
    shape: Literal["rectangle", "lower", "upper", "masked"]


def cut(q0: int, q1: int, lo: int, hi: int | None, first: int, ragged: int = 0) -> Iterator[Piece]:
    """Pieces of the pairs lo <= i - j <= hi with q0 <= i < q1 and j >= first.

    Keys before the slot `ragged` are not the same for all rows of the batch; pieces that touch them are `masked`.
    """
    width = q1 - q0 if hi is None else max(1, hi - lo)
    for begin in range(q0, q1, width):
        for piece in _tile(begin, min(begin + width, q1), lo, hi, first):
            yield from _without_ragged(piece, ragged)


def cut_chunks(q0: int, q1: int, lo: int, hi: int | None, chunk: int, start: int, first: int) -> Iterator[Piece]:
    """Pieces of the pairs lo <= n(i) - n(j) <= hi, j <= i, with q0 <= i < q1 and j >= first; n(x) = (x - start) // chunk."""
    begin = max(q0, start)
    while begin < q1:
        own = (begin - start) // chunk
        end = min(q1, start + (own + 1) * chunk)
        low = first if hi is None else max(first, start + (own - hi) * chunk)
        high = min(begin, start + (own - lo + 1) * chunk)
        if low < high:
            yield Piece(begin, end, low, high, "rectangle")
        if lo == 0:
            yield from _tile(max(begin, low), end, 0, None, max(begin, low))
        begin = end


def cut_before(q0: int, q1: int, last: int, first: int) -> Iterator[Piece]:
    """Pieces of the pairs first <= j < last, j <= i, with q0 <= i < q1."""
    begin = max(q0, last)
    if q0 < last:
        yield from cut(q0, min(q1, last), 0, None, first)
    if begin < q1 and first < last:
        yield Piece(begin, q1, first, last, "rectangle")


def ragged_apart(pieces: Iterable[Piece], ragged: int) -> Iterator[Piece]:
    """Those that touch keys before the slot `ragged` as `masked` ones."""
    for piece in pieces:
        yield from _without_ragged(piece, ragged)


def tiles(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Cut into tiles of bounded size, `rectangle` or `masked`."""
    for piece in pieces:
        shape: Literal["rectangle", "masked"] = "rectangle" if piece.shape == "rectangle" else "masked"
        for q0 in range(piece.q0, piece.q1, _TILE_ROWS):
            q1 = min(q0 + _TILE_ROWS, piece.q1)
            first, last = piece.k0, piece.k1
            if piece.shape == "lower":
                last = min(last, piece.k0 + q1 - piece.q0)
            elif piece.shape == "upper":
                first = piece.k0 + q0 - piece.q0
            for k0 in range(first, last, _TILE_KEYS):
                yield Piece(q0, q1, k0, min(k0 + _TILE_KEYS, last), shape)


def _tile(q0: int, q1: int, lo: int, hi: int | None, first: int) -> Iterator[Piece]:
    if q1 - q0 == 1:
        low = first if hi is None else max(first, q0 - hi)
        if low <= q0 - lo:
            yield Piece(q0, q1, low, q0 - lo + 1, "rectangle")
        return
    middle = first
    if hi is not None:  # upper square: query q0 + x sees key q0 - hi + y where y >= x
        skipped = max(0, first - (q0 - hi))
        if skipped == 0:
            yield Piece(q0, q1, q0 - hi, q1 - hi, "upper")
        elif q0 - hi + skipped < q1 - hi:
            yield Piece(q0, q0 + skipped + 1, first, q1 - hi, "rectangle")
            if q0 + skipped + 1 < q1:
                yield Piece(q0 + skipped + 1, q1, first + 1, q1 - hi, "upper")
        middle = max(first, q1 - hi)
    if middle < q0 - lo:
        yield Piece(q0, q1, middle, q0 - lo, "rectangle")
    late = max(0, first - (q0 - lo))  # queries that come before any key of theirs
    if q0 + late < q1:
        yield Piece(q0 + late, q1, q0 + late - lo, q1 - lo, "lower")


def _without_ragged(piece: Piece, ragged: int) -> Iterator[Piece]:
    if piece.k0 >= ragged:
        yield piece
        return
    masked_end = min(piece.k1, ragged) if piece.shape == "rectangle" else piece.k1
    for q0 in range(piece.q0, piece.q1, MASKED_ROWS):
        yield Piece(q0, min(q0 + MASKED_ROWS, piece.q1), piece.k0, masked_end, "masked")
    if masked_end < piece.k1:
        yield Piece(piece.q0, piece.q1, masked_end, piece.k1, "rectangle")
