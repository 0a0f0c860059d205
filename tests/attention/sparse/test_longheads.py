"""LongHeads a second time, as arXiv:2402.10685 describes it: chosen chunks put side by side, at positions from 0 on."""

import pytest
import torch

from longreach.attention.base import Vectors
from longreach.attention.sparse.longheads import LongHeads
from longreach.core.bands import PROBE
from tests.attention.one_head import DIM, attention, random_head, rotated

SCALE = DIM**-0.5


def representation(q, k, v):
    """c of a chunk: a summary query from attention without a mask, and what it reads from the chunk's keys."""
    places = torch.arange(len(k))
    q, k = rotated(q, places), rotated(k, places)
    summary = ((q @ k.T * SCALE).softmax(-1) @ v).mean(0)
    return (k @ summary * SCALE).softmax(0) @ k


def side_by_side(size, count, q, k, v):
    """(attention outputs [T, D], chunks seen by each query)."""
    means = [representation(q[a : a + size], k[a : a + size], v[a : a + size]) for a in range(0, len(q) - size + 1, size)]
    rows, chosen = [], []
    for i in range(len(q)):
        own = i // size
        seen = {0, own, max(0, own - 1)}
        scores = {chunk: float(q[i] @ means[chunk]) for chunk in range(1, own - 1)}
        while scores and len(seen) < count:
            best = max(scores, key=scores.get)
            scores.pop(best)
            seen.add(best)
        slots = [slot for chunk in sorted(seen) for slot in range(chunk * size, min((chunk + 1) * size, i + 1))]
        packed = rotated(k[slots], torch.arange(len(slots)))
        rows.append(attention(rotated(q[i], len(slots) - 1)[None] @ packed.T, v[slots])[0])
        chosen.append(sorted(seen))
    return torch.stack(rows), chosen


def by_reference(method, q, k, v):
    i, j = torch.arange(len(q))[:, None], torch.arange(len(q))[None]
    vectors = Vectors(layer=PROBE, q=q[None], k=k[None], v=v[None], scale=SCALE, prompt=len(q), rotated=rotated)
    relative, visible = (found[0] for found in method.reference_of(i, j, vectors))
    logits = (rotated(q[:, None].expand(-1, len(k), -1), relative) * k).sum(-1)
    return attention(logits.masked_fill(~visible, float("-inf")), v), relative, visible


@pytest.mark.parametrize(("size", "count"), [(4, 5), (5, 3), (3, 6), (8, 4)])
def test_it_is_attention_over_chunks_side_by_side(size, count):
    q, k, v = random_head(70)
    wanted, chosen = side_by_side(size, count, q, k, v)
    ours, relative, visible = by_reference(LongHeads(chunk_size=size, num_chunks=count), q, k, v)
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-10)
    assert max(map(len, chosen)) == count
    assert relative[visible].min() >= 0
    assert relative[visible].max() < size * count
    assert len({tuple(set(chunks[1:-2])) for chunks in chosen[-size * 2 :]}) > 1 or count == 3, "all queries choose the same"


def test_the_bound_on_distances_holds():
    method = LongHeads(chunk_size=4, num_chunks=5)
    i, j = torch.arange(70)[:, None], torch.arange(70)[None]
    _, relative, visible = by_reference(method, *random_head(70))
    assert (relative <= method.reference(i, j)[0])[visible].all()


def test_summaries_and_choices_are_those_of_the_definition():
    heads = [random_head(24, seed) for seed in range(4)]
    q, k, v = (torch.stack([head[part] for head in heads])[None] for part in range(3))  # [1, 4, 24, D]
    k, v = k[:, ::2], v[:, ::2]  # two heads to each pair of keys and values
    method, places = LongHeads(chunk_size=4, num_chunks=4), torch.arange(24) % 4
    summaries = method.summarize(*(x.unflatten(2, (6, 4)) for x in (rotated(q, places), rotated(k, places), v)), SCALE)
    for head in range(4):
        for chunk in range(6):
            part = slice(chunk * 4, chunk * 4 + 4)
            wanted = representation(q[0, head, part], k[0, head // 2, part], v[0, head // 2, part])
            torch.testing.assert_close(summaries[0, head, chunk], wanted, rtol=0, atol=1e-12)
    chosen = method.select(q, summaries, torch.arange(24) // 4)
    assert chosen.shape == (1, 4, 24, 2)
    assert (chosen[:, :, :4] == -1).all(), "nothing to choose from yet"
    for head in range(4):
        for query in range(4, 24):
            count = query // 4
            best = max(range(1, count), key=lambda chunk: float(q[0, head, query] @ summaries[0, head, chunk]), default=-1)
            assert chosen[0, head, query].tolist() == ([best, 0] if best > 0 else [0, -1])


def test_of_equal_chunks_the_nearest_is_chosen():
    summaries = torch.ones(1, 1, 6, DIM) * torch.tensor([5.0, 1, 2, 2, 2, 1])[:, None]
    chosen = LongHeads(chunk_size=4, num_chunks=4).select(torch.ones(1, 1, 1, DIM), summaries, torch.tensor([6]))
    assert chosen.tolist() == [[[[4, 0]]]]
    chosen = LongHeads(chunk_size=4, num_chunks=4).select(torch.ones(1, 1, 1, DIM), summaries, torch.tensor([4]))
    assert chosen.tolist() == [[[[3, 0]]]]
