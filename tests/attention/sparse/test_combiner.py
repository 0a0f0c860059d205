"""Abstractions of segments, by arXiv:2107.05768."""

import math

import pytest
import torch

import longreach
from longreach.attention.base import Vectors
from longreach.attention.sparse.combiner import Combiner
from longreach.core.bands import PROBE
from longreach.testing.conformance.base import cached_logits
from longreach.testing.models import random_ids, tiny_model
from tests.attention.one_head import DIM, random_head, rotated

SCALE = DIM**-0.5
POOLS = {"max": lambda x: x.max(0).values, "mean": lambda x: x.mean(0), "sum": lambda x: x.sum(0)}


def output(method, q, k, v, softcap=None):
    """Attention output [T, D] as the method defines it."""
    i, j = torch.arange(len(q))[:, None], torch.arange(len(k))[None]
    vectors = Vectors(layer=PROBE, q=q[None], k=k[None], v=v[None], scale=SCALE, prompt=len(q), rotated=rotated, softcap=softcap)
    masses = method.masses(i, j, vectors)[0] * (j <= i)
    return masses @ v / masses.sum(-1, keepdim=True)


@pytest.mark.parametrize(("pooling", "softcap"), [("max", None), ("mean", None), ("sum", None), ("max", 2.0)])
def test_a_query_sees_its_segment_and_abstractions_of_those_before(pooling, softcap):
    q, k, v = random_head(23)
    turned_q, turned_k = (rotated(x, torch.arange(23)) for x in (q, k))
    wanted = []
    for query in range(23):
        keys, values = [], []
        for segment in range(query // 5):
            tokens = slice(5 * segment, 5 * segment + 5)
            pooled = POOLS[pooling](turned_q[tokens])
            keys.append(POOLS[pooling](turned_k[tokens]))
            values.append((turned_k[tokens] @ pooled * SCALE).softmax(0) @ v[tokens])
        begin = query // 5 * 5
        keys, values = torch.stack([*keys, *turned_k[begin : query + 1]]), torch.stack([*values, *v[begin : query + 1]])
        logits = keys @ turned_q[query] * SCALE
        logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
        wanted.append(logits.softmax(0) @ values)
    torch.testing.assert_close(output(Combiner(segment=5, pooling=pooling), q, k, v, softcap), torch.stack(wanted), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
def test_an_abstraction_is_what_the_pooled_query_reads(pooling):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 3, 6, DIM, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 2, 3, 6, DIM, generator=generator, dtype=torch.float64)
    keys, values = Combiner(segment=6, pooling=pooling).summarize(q, k, v, SCALE).split(DIM, -1)
    for row, head, segment in ((0, 0, 0), (1, 2, 1), (1, 3, 2)):
        mine = k[row, head // 2, segment], v[row, head // 2, segment]
        torch.testing.assert_close(keys[row, head, segment], POOLS[pooling](mine[0]))
        weights = (mine[0] @ POOLS[pooling](q[row, head, segment]) * SCALE).softmax(0)
        torch.testing.assert_close(values[row, head, segment], weights @ mine[1])


def test_every_segment_is_summed_up_once_as_a_text_is_written(monkeypatch):
    model, ids, summed = tiny_model(max_position_embeddings=64), random_ids(1, 40), []
    summarize = Combiner.summarize

    def counting(self, q, k, v, scale):
        summed.append(q.shape[2])
        return summarize(self, q, k, v, scale)

    monkeypatch.setattr(Combiner, "summarize", counting)
    with longreach.apply(model, Combiner(segment=8)):
        cached_logits(model, ids, [19, *[1] * 21])
    assert sum(summed) == 5 * model.config.num_hidden_layers


def test_a_query_reads_about_twice_the_root_of_the_text():
    length = 4096
    read = Combiner(segment=math.isqrt(length)).keys_read(torch.arange(length))
    assert int(read.max()) == 64 + 63
    assert read[:3].tolist() == [1, 2, 3]
    assert read[64:66].tolist() == [2, 3]
