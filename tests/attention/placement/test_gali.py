"""GALI a second time, from arXiv:2502.02659: positions handed out one by one, and logits taken at both whole positions around."""

import pytest
import torch

from longreach.attention.placement.gali import Gali
from longreach.engine.cache_argument import cache_argument, cache_of
from longreach.testing.models import random_ids, tiny_model
from tests.attention.one_head import attention, random_head, rotated


def greedy_positions(length, window, local):
    """Positions of a text of `length` tokens: groups from the first on, until all tokens fit into the window."""
    if length <= window:
        return [float(t) for t in range(length)]
    group = 2
    while (window - local) * group + local < length:
        group += 1
    spread, groups = [], 0
    while len(spread) + window - groups < length:
        spread += [groups + part / group for part in range(group)]
        groups += 1
    rest = list(range(groups, window))
    return [*spread[: length - len(rest)], *map(float, rest)]


def by_both_neighbours(window, local, chunk, q, k, v):
    """Query by query: the text ends where the query's chunk does; logits at the two whole distances around, interpolated."""
    rows = []
    for i in range(len(q)):
        length = window
        while length <= i:
            length += chunk
        positions = torch.tensor(greedy_positions(length, window, local), dtype=torch.float64)
        distance = positions[i].ceil() - positions[: i + 1]
        at = [(rotated(q[i].expand(i + 1, -1), whole) * k[: i + 1]).sum(-1) for whole in (distance.floor(), distance.ceil())]
        share = distance - distance.floor()
        rows.append(attention(((1 - share) * at[0] + share * at[1])[None], v[: i + 1])[0])
    return torch.stack(rows)


@pytest.mark.parametrize(("window", "local", "chunk"), [(32, 8, 4), (20, 4, 1), (16, 2, 24), (8, 7, 3), (30, 1, 100)])
def test_it_is_the_interpolation_of_logits(window, local, chunk):
    q, k, v = random_head(80)
    i, j = torch.arange(80)[:, None], torch.arange(80)[None]
    relative, visible = Gali(window_size=window, local_window=local, chunk_size=chunk).reference(i, j)
    below, pairs = relative.floor(), q[:, None].expand(-1, 80, -1)
    at = [(rotated(pairs, whole) * k).sum(-1) for whole in (below, below + 1)]
    logits = at[0] + (relative - below) * (at[1] - at[0])
    ours = attention(logits.masked_fill(~visible, float("-inf")), v)
    wanted = by_both_neighbours(window, local, chunk, q, k, v)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10)
    broken = (rotated(pairs, relative) * k).sum(-1).masked_fill(~visible, float("-inf"))
    assert (attention(broken, v) - wanted).abs().max() > 1e-3, "interpolated positions would do as well: nothing is tested"


@pytest.mark.parametrize(("window", "local", "chunk"), [(32, 8, 4), (20, 4, 1), (16, 4, 4)])
def test_positions_stay_inside_the_window_and_near_ones_are_true(window, local, chunk):
    i, j = torch.arange(400)[:, None], torch.arange(400)[None]
    relative, visible = Gali(window_size=window, local_window=local, chunk_size=chunk).reference(i, j)
    assert relative[visible].min() >= 0
    assert relative[visible].max() < window
    near = visible & (i - j <= local - chunk)
    assert torch.equal(relative[near], (i - j)[near].double())
    assert (relative.diff(dim=1)[visible[:, 1:]] <= 0).all(), "a later key is farther"


def test_positions_that_one_query_has_are_used_as_far_as_they_go():
    # 20 positions for 21 tokens: one group of two, the other 19 tokens keep theirs.
    assert greedy_positions(21, 20, 4) == [0, 0.5, *range(1, 20)]
    relative, _ = Gali(window_size=20, local_window=4, chunk_size=1).reference(torch.tensor(20), torch.arange(21))
    assert relative.tolist() == [19, 18.5, *range(18, -1, -1)]


def test_copies_of_keys_are_extended_and_made_anew_only_when_groups_grow(monkeypatch):
    from longreach.engine._turn import Turning
    from longreach.engine.apply import apply

    turned = []
    original = Turning.turn
    monkeypatch.setattr(Turning, "turn", lambda self, x, *rest: turned.append(x.shape[2]) or original(self, x, *rest))
    model, ids = tiny_model(max_position_embeddings=32, num_hidden_layers=1), random_ids(1, 120)
    with apply(model, Gali(window_size=32, local_window=8, chunk_size=4)), torch.no_grad():
        out = model(ids[:, :40], use_cache=True)
        for token in range(40, 120):
            out = model(ids[:, token : token + 1], **cache_argument(model, cache_of(out)), use_cache=True)
    groups = {Gali(window_size=32, local_window=8, chunk_size=4)._layout(length)[0] for length in range(36, 121, 4)}
    anew = [count for count in turned if count > 12]
    assert len(anew) <= len(groups)
    assert sum(turned) < 120 * len(groups)
