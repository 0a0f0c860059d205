"""Clusters of a prompt's keys."""

import pytest
import torch
from transformers import DynamicCache

import longreach
from longreach.cache.retrieval.squeezed import Squeezed
from longreach.decoding.reading import new_cache, prefill
from longreach.engine import _clusters
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.testing.models import tiny_model


def directions(count, dims=8):
    return torch.nn.functional.normalize(torch.randn(count, dims), dim=-1)


def test_keys_of_a_few_directions_fall_into_their_clusters():
    torch.manual_seed(0)
    kinds = torch.arange(120) // 30
    keys = (directions(4)[kinds] + 0.01 * torch.randn(120, 8)) * torch.rand(120, 1).add(1)
    group, centroids, _ = Squeezed(clusters=4 / 120).cluster(keys[None, None], torch.randn(1, 1, 5, 8), 1.0)
    found = [{int(label) for label in group[0, 0][kinds == kind]} for kind in range(4)]
    assert all(len(labels) == 1 for labels in found)
    assert len(set.union(*found)) == 4
    for kind, (label,) in enumerate(found):
        torch.testing.assert_close(centroids[0, 0, label], keys[kinds == kind].mean(0))


def test_a_smaller_share_reads_fewer_keys():
    torch.manual_seed(0)
    keys, queries, read = torch.randn(1, 2, 400, 16), torch.randn(1, 4, 50, 16), []
    for keep in (1, 0.5, 0.2):
        policy = Squeezed(keep=keep)
        group, centroids, bar = policy.cluster(keys, queries, 0.25)
        sizes = torch.stack([row.bincount(minlength=20) for row in group[0]])[None]
        seen = policy.select(queries, centroids, sizes, bar, 0.25) * sizes.repeat_interleave(2, 1)[:, :, None]
        read.append(float(seen.sum(-1).double().mean()) / 400)
    assert 1 == read[0] > read[1] > read[2]


@torch.no_grad()
def test_a_prompt_is_read_whole_and_clustered_when_it_ends():
    model, ids = tiny_model(max_position_embeddings=512), torch.randint(3, 90, (1, 330), generator=torch.Generator().manual_seed(0))
    whole = model(ids).logits
    with longreach.apply(model, "squeezed:keep=0.2,observe=30", warn=False):
        cache = DynamicCache(config=model.config)
        prompt = model(ids[:, :300], **cache_argument(model, cache)).logits
        after = model(ids[:, 300:], **cache_argument(model, cache)).logits
    torch.testing.assert_close(prompt, whole[:, :300])
    assert (after - whole[:, 300:]).abs().max() > 1e-3
    (row,) = cache.layers[0].store.rows.values()
    assert row.state.groups.k.shape == (1, 2, 270, 16)
    assert row.state.groups.centroids.shape[2] == 13


@torch.no_grad()
@pytest.mark.parametrize("keep", [0.1, 0.3])
def test_a_mask_over_all_keys_gives_what_a_copy_of_the_needed_ones_does(monkeypatch, keep):
    model, ids = tiny_model("llama", num_attention_heads=4, num_key_value_heads=2), torch.arange(60)[None]
    found = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(_clusters, "_WHOLE", share)
        with apply(model, f"squeezed:keep={keep},clusters=0.3,observe=5", warn=False):
            cache = new_cache(model)
            prefill(model, ids[:, :50], cache=cache)
            found.append(model(ids[:, 50:], **cache_argument(model, cache), use_cache=True).logits)
    torch.testing.assert_close(*found)
