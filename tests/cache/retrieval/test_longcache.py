"""Spans that queries find by content alone."""

import pytest
import torch
from transformers import DynamicCache

import longreach
from longreach.cache.retrieval.longcache import LongCache
from longreach.core.bands import PROBE
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import tiny_model


def pieces(policy, *wanted, pieces=10):
    """Pieces that one query sees beyond its local window; wanted: tokens that each head wants, most first."""
    keys = torch.eye(pieces * policy.span_size)
    q = torch.zeros(1, len(wanted), 1, len(keys))
    for head, tokens in enumerate(wanted):
        for weight, token in enumerate(reversed(tokens), 1):
            q[0, head, 0, token] = weight
    found = policy.select(q, keys.view(1, 1, pieces, policy.span_size, -1), torch.tensor([pieces]))
    assert found.shape[1] == 1, "all heads see the same"
    return [piece for piece in found[0, 0, 0].tolist() if piece >= 0]


@pytest.mark.parametrize(
    ("token", "seen"),
    [
        (22, [5, 0]),  # 20 to 23
        (21, [5, 4, 0]),  # 19 to 22
        (23, [6, 5, 0]),  # 21 to 24
        (4, [1, 0]),  # nothing before it is to be found
        (39, [9, 0]),  # nor behind the last piece
    ],
)
def test_a_span_is_what_stands_around_the_key(token, seen):
    assert pieces(LongCache(span_size=4, num_spans=2, local_window=8, top_k=1), [token]) == seen


def test_the_keys_that_most_heads_found_win():
    policy = LongCache(span_size=4, num_spans=1, local_window=8, top_k=2)
    assert pieces(policy, [10, 30], [10, 22], [18, 30], [10, 14]) == [2, 0]
    assert pieces(policy, [10, 30], [10, 30]) == [7, 0], "of equal ones the later"


def test_the_first_piece_is_not_looked_for():
    assert pieces(LongCache(span_size=4, num_spans=1, local_window=8, top_k=1), [2, 18]) == [4, 0]


def test_what_is_found_stands_right_behind_the_local_window():
    window, chosen = LongCache(span_size=4, num_spans=1, local_window=8).stores(PROBE)
    query = torch.tensor(103)  # in the piece 25, so that the window begins with the piece 23, 11 tokens back
    assert (window.lo, window.hi, window.chunk) == (0, 2, 4)
    last_of_nearest = chosen.keys(torch.tensor(51))
    assert [int(place(query) - last_of_nearest) for place in chosen.queries] == [12, 16, 20]


@torch.no_grad()
def test_the_choice_hangs_on_what_keys_are_and_not_on_where_they_stand():
    chosen, found, model = [], [], tiny_model()

    class Noting(LongCache):
        def select(self, q, keys, count):
            chosen.append(super().select(q, keys, count)[0, 0, -1])
            return chosen[-1][None, None, None]

    order = torch.Generator().manual_seed(1)  # one with no ties
    text = torch.randperm(80, generator=order)[:60] + 5  # no token twice
    for ids in (text, torch.cat([text[:1], text[1:50][torch.randperm(49, generator=order)], text[50:]])):
        chosen.clear()
        with longreach.apply(model, Noting(span_size=1, num_spans=9, local_window=9, top_k=2), warn=False):
            cache = DynamicCache(config=model.config)
            for token in ids[None].split(1, 1):
                model(token, **cache_argument(model, cache))
        last = chosen[-len(cache.layers)]  # of the first layer, whose keys know nothing but their token
        found.append({int(ids[token]) for token in last if token > 0})
    assert found[0] == found[1]
    assert len(found[0]) > 1
