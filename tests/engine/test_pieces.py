"""Cutting a band: the pieces hold every pair of the band once, and nothing else."""

import random
from collections import Counter

import pytest

from longreach.engine import _pieces
from longreach.engine._pieces import MASKED_ROWS, Piece, cut, cut_before, cut_chunks, ragged_apart, tiles


def pairs_of(piece):
    """(query, key) slots that a piece computes; of masked ones, all that the mask may choose from."""
    pairs = [(i, j) for i in range(piece.q0, piece.q1) for j in range(piece.k0, piece.k1)]
    if piece.shape in ("lower", "upper"):
        assert piece.q1 - piece.q0 == piece.k1 - piece.k0, f"{piece} is not square"
    if piece.shape == "lower":
        return [(i, j) for i, j in pairs if j - piece.k0 <= i - piece.q0]
    return [(i, j) for i, j in pairs if j - piece.k0 >= i - piece.q0] if piece.shape == "upper" else pairs


def band(q0, q1, lo, hi, first):
    return {(i, j) for i in range(q0, q1) for j in range(first, i - lo + 1) if hi is None or i - j <= hi}


def assert_exact(q0, q1, lo, hi, first, ragged=0):
    return assert_holds(cut(q0, q1, lo, hi, first, ragged), band(q0, q1, lo, hi, first), q0, q1, first, ragged)


def assert_holds(pieces, wanted, q0, q1, first, ragged=0):
    """The pieces hold every wanted pair once. Returns how many these are."""
    found = Counter()
    for piece in pieces:
        assert q0 <= piece.q0 < piece.q1 <= q1, f"{piece} has no queries, or others"
        assert first <= piece.k0 < piece.k1, f"{piece} has no keys, or keys that are not there"
        pairs = pairs_of(piece)
        if piece.shape == "masked":
            assert piece.q1 - piece.q0 <= MASKED_ROWS
            pairs = [pair for pair in pairs if pair in wanted]
        else:
            assert piece.k0 >= ragged, f"{piece} touches keys that are not the same for all rows, without a mask"
        found.update(pairs)
    assert set(found) == wanted
    assert set(found.values()) <= {1}, "a pair is computed twice"
    return len(wanted)


def test_random_bands_are_cut_exactly():
    # `first`: the oldest key kept, or where real tokens begin; `ragged`: where the last row's real tokens begin.
    choose = random.Random(0)
    compared = 0
    for _ in range(6000):
        q0 = choose.randint(0, 40)
        lo = choose.choice([0, 0, 0, 1, choose.randint(0, 30)])
        hi = choose.choice([None, lo, lo + 1, lo + choose.randint(0, 40)])
        first = choose.choice([0, 0, choose.randint(0, 60)])
        ragged = choose.choice([0, 0, first, first + choose.randint(0, 40)])
        compared += assert_exact(q0, q0 + choose.randint(1, 40), lo, hi, first, ragged)
    assert compared > 1_000_000


@pytest.mark.parametrize("lo", [0, 1, 5])
@pytest.mark.parametrize("hi", [None, 0, 1, 4, 5, 6, 11])
def test_small_bands_are_cut_exactly_wherever_they_begin(lo, hi):
    for q0 in range(8):
        for q1 in range(q0 + 1, 14):
            for first in range(16):
                assert_exact(q0, q1, lo, hi, first)


def test_a_band_without_pairs_has_no_pieces():
    assert list(cut(0, 10, 5, 4, 0)) == []
    assert list(cut(0, 10, 0, None, 10)) == []
    assert list(cut(0, 4, 4, None, 0)) == []


def test_prefill_at_once_is_one_causal_piece():
    assert list(cut(0, 100, 0, None, 0)) == [Piece(0, 100, 0, 100, "lower")]


def test_a_chunk_is_a_rectangle_and_a_triangle():
    assert list(cut(100, 150, 0, None, 0)) == [Piece(100, 150, 0, 100, "rectangle"), Piece(100, 150, 100, 150, "lower")]


def test_decoding_is_one_rectangle():
    assert list(cut(100, 101, 0, None, 0)) == [Piece(100, 101, 0, 101, "rectangle")]
    assert list(cut(100, 101, 0, 15, 0)) == [Piece(100, 101, 85, 101, "rectangle")]
    assert list(cut(100, 101, 16, None, 20)) == [Piece(100, 101, 20, 85, "rectangle")]


def test_only_what_is_ragged_is_masked():
    pieces = list(cut(100, 150, 0, None, 0, ragged=30))
    assert pieces == [
        Piece(100, 150, 0, 30, "masked"),
        Piece(100, 150, 30, 100, "rectangle"),
        Piece(100, 150, 100, 150, "lower"),
    ]


def test_masks_stay_small():
    pieces = list(cut(0, 1000, 0, None, 0, ragged=10))
    assert [piece.q1 - piece.q0 for piece in pieces] == [MASKED_ROWS] * 3 + [1000 - 3 * MASKED_ROWS]


def test_random_chunk_bands_are_cut_exactly():
    choose = random.Random(0)
    compared = 0
    for _ in range(3000):
        q0, chunk, start = choose.randint(0, 40), choose.randint(2, 20), choose.choice([0, choose.randint(0, 50)])
        q1, lo = q0 + choose.randint(1, 40), choose.randint(0, 2)
        hi = choose.choice([None, lo, lo + 1])
        first = max(start, choose.choice([0, choose.randint(0, 40)]))  # what was forgotten
        ragged = choose.choice([0, choose.randint(0, 60)])
        wanted = {
            (i, j)
            for i in range(max(q0, start), q1)
            for j in range(first, i + 1)
            if lo <= (n := (i - start) // chunk - (j - start) // chunk) and (hi is None or n <= hi)
        }
        pieces = ragged_apart(cut_chunks(q0, q1, lo, hi, chunk, start, first), ragged)
        compared += assert_holds(pieces, wanted, q0, q1, first, ragged)
    assert compared > 100_000


def test_first_keys_alone_are_cut_exactly():
    for q0 in range(8):
        for q1 in range(q0 + 1, 14):
            for last in range(16):
                for first in range(last + 2):
                    wanted = {(i, j) for i in range(q0, q1) for j in range(first, min(last, i + 1))}
                    assert_holds(cut_before(q0, q1, last, first), wanted, q0, q1, first)


def test_chunks_need_no_masks():
    pieces = [piece for lo, hi in ((0, 0), (1, 1), (2, None)) for piece in cut_chunks(0, 1000, lo, hi, 96, 0, 0)]
    assert {piece.shape for piece in pieces} == {"lower", "rectangle"}
    assert len(pieces) == 11 + 10 + 9


def test_tiles_hold_what_the_pieces_hold_and_stay_small(monkeypatch):
    monkeypatch.setattr(_pieces, "_TILE_ROWS", 5)
    monkeypatch.setattr(_pieces, "_TILE_KEYS", 7)
    choose = random.Random(1)
    for _ in range(500):
        q0, lo = choose.randint(0, 40), choose.choice([0, 0, choose.randint(0, 20)])
        q1, hi, first = (
            q0 + choose.randint(1, 40),
            choose.choice([None, lo + choose.randint(0, 40)]),
            choose.choice([0, choose.randint(0, 40)]),
        )
        found = list(tiles(cut(q0, q1, lo, hi, first)))
        assert all(tile.shape in ("rectangle", "masked") and tile.q1 - tile.q0 <= 5 and tile.k1 - tile.k0 <= 7 for tile in found)
        assert_holds(found, band(q0, q1, lo, hi, first), q0, q1, first)
