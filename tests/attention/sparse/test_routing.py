"""Clusters of queries and keys, by arXiv:2003.05997."""

from dataclasses import replace

import pytest
import torch

import longreach
from longreach.attention.base import Vectors
from longreach.attention.sparse import routing
from longreach.attention.sparse.routing import Routing
from longreach.core.bands import PROBE
from longreach.engine.engine import follow
from longreach.engine.weights import own_weights
from longreach.testing.conformance.base import cached_logits, logits
from longreach.testing.models import random_ids, tiny_model
from tests.attention.one_head import DIM, random_head, rotated

LAYER = replace(PROBE, num_heads=2, num_kv_heads=2, head_dim=DIM)


def equipped(method, seed=0):
    torch.manual_seed(seed)
    return longreach.equip(tiny_model(), method).eval()


def output(method, q, k, v, centroids):
    """Attention outputs [2, T, D] of a local head and a routed one as the method defines them."""
    layer = replace(LAYER, weights={"routing.centroids": centroids})
    q, k, v = (x[None].repeat(2, 1, 1) for x in (q, k, v))
    vectors = Vectors(layer=layer, q=q, k=k, v=v, scale=DIM**-0.5, prompt=q.shape[1], rotated=rotated)
    masses = method.masses(torch.arange(q.shape[1])[:, None], torch.arange(q.shape[1])[None], vectors)
    return masses @ v / masses.sum(-1, keepdim=True).clamp(min=1e-300)


def normal(x):
    return torch.nn.functional.layer_norm(x, (DIM,), eps=1e-6)


def test_heads_see_windows_of_the_text_and_of_clusters():
    q, k, v = random_head(30)
    centroids = torch.randn(1, 6, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    local, routed = output(Routing(num_clusters=6, window_size=4), q, k, v, centroids)
    turned_q, turned_k = (rotated(x, torch.arange(30)) for x in (q, k))
    alone = 0
    for query in range(30):
        near = slice(max(0, query - 3), query + 1)
        wanted = (turned_k[near] @ turned_q[query] / DIM**0.5).softmax(0) @ v[near]
        torch.testing.assert_close(local[query], wanted, rtol=0, atol=1e-12)
        of = [int((centroids[0] @ normal(x)).argmax()) for x in (q[query], *k[: query + 1])]
        mine = [key for key in range(query + 1) if of[1 + key] == of[0]][-4:]
        alone += not mine
        wanted = (normal(k[mine]) @ normal(q[query]) / DIM**0.5).softmax(0) @ v[mine] if mine else torch.zeros_like(v[0])
        torch.testing.assert_close(routed[query], wanted, rtol=0, atol=1e-9)
    assert 0 < alone < 10, "some query has nobody before it"


def test_one_cluster_is_attention_with_normalised_queries_and_keys():
    q, k, v = random_head(20)
    _, routed = output(Routing(num_clusters=1, window_size=20), q, k, v, torch.randn(1, 1, DIM).double())
    attention = normal(q) @ normal(k).mT / DIM**0.5
    wanted = attention.masked_fill(torch.ones(20, 20).triu(1).bool(), -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(routed, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("together", [1, 5])
def test_queries_may_be_computed_a_few_at_a_time(monkeypatch, together):
    method = Routing(num_clusters=3, window_size=5)
    model, ids = equipped(method), random_ids(2, 40)
    with longreach.apply(model, method):
        wanted = logits(model, ids)
        monkeypatch.setattr(routing, "at_once", lambda row: together)
        monkeypatch.setattr(routing, "_ROWS", together)
        torch.testing.assert_close(logits(model, ids), wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(cached_logits(model, ids, (33, 1, 6)), wanted, rtol=0, atol=1e-5)


def test_half_precision_gives_numbers():
    method = Routing(num_clusters=3, window_size=5)
    model = equipped(method).bfloat16()
    with longreach.apply(model, method):
        assert logits(model, random_ids(1, 40)).isfinite().all()


def test_centroids_move_to_the_average_of_what_is_nearest():
    generator = torch.Generator().manual_seed(0)
    method, old = Routing(num_clusters=3, decay=0.9), torch.randn(1, 3, DIM, generator=generator)
    sums, mass = torch.randn(1, 3, DIM, generator=generator), torch.tensor([[2.0, 5.0, 3.0]])
    sums[0, 2] = 0
    counts = torch.tensor([[4.0, 1.0, 0.0]])
    weights = {"centroids": old.clone(), "mass": mass.clone(), "sums": sums.clone(), "counts": counts.clone()}
    method.follow(replace(LAYER, weights={f"routing.{name}": value for name, value in weights.items()}))
    # The averages of sums and of counts, one over the other.
    wanted = (0.9 * mass[..., None] * old + 0.1 * sums) / (0.9 * mass + 0.1 * counts)[..., None]
    torch.testing.assert_close(weights["centroids"], wanted)
    assert torch.equal(weights["centroids"][0, 2], old[0, 2]), "nothing is nearest to it"
    torch.testing.assert_close(weights["mass"], 0.9 * mass + 0.1 * counts)
    assert not weights["sums"].any()
    assert not weights["counts"].any()


def test_what_is_read_is_noted_in_training_alone():
    method = Routing(num_clusters=3, window_size=5)
    model, ids = equipped(method), random_ids(2, 40)
    routed = model.config.num_attention_heads // 2
    counts = {name: weight for name, weight in own_weights(model).items() if name.endswith("counts")}
    assert len(counts) == model.config.num_hidden_layers
    with longreach.apply(model, method):
        logits(model, ids)
        assert not any(weight.any() for weight in counts.values())
        model.train()
        model(ids, use_cache=False)
        for weight in counts.values():
            assert weight.sum(-1).tolist() == [2 * 2 * 40] * routed, "a query and a key of every token"
        follow(model)
    assert not any(weight.any() for weight in counts.values())
