"""Every method on a GPU gives what it gives on the CPU."""

import copy

import pytest
import torch
from transformers import DynamicCache

from longreach.core import registry
from longreach.core.spec import parse
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.snapshot_files import load, save
from longreach.engine.snapshots import restore, snapshot
from longreach.testing.conformance import stacks
from longreach.testing.conformance.base import cached_logits, left_padding, logits, model_for, rounds, written
from longreach.testing.models import random_ids, tiny_model

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

MODULES = [registry.module(name, kind) for kind in ("attention", "cache") for name in registry.names(kind)]
METHODS = [(stacks(module) or module.EXAMPLES)[0] for module in MODULES]
METHODS += parse("dynamic_ntk")
DECODING = [method for method in METHODS if type(method).__name__ != "AttentionAlignment"]


def both(method, family="llama"):
    """A tiny model on the CPU and its copy on the GPU."""
    model = model_for(method, family)
    return model, copy.deepcopy(model).cuda()


@pytest.mark.parametrize("method", DECODING, ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_logits_are_those_of_the_cpu(method, family):
    if rounds(method) and family != "llama":
        pytest.skip("in float64, which these families do not have, is a code always the same")
    model, twin = both(method, family)
    ids, mask = random_ids(2, 60), left_padding((37, 60), 60)
    with apply(model, method):
        wanted = logits(model, ids), logits(model, ids, mask)[mask.bool()]
    with apply(twin, method):
        for sizes in ((60,), (13, 1, 16, 30)):
            found = cached_logits(twin, ids.cuda(), sizes).cpu()
            torch.testing.assert_close(found, wanted[0], rtol=0, atol=2e-3)
        padded = cached_logits(twin, ids.cuda(), (20, 20, 20), mask.cuda()).cpu()[mask.bool()]
        torch.testing.assert_close(padded, wanted[1], rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", DECODING, ids=str)
def test_it_writes_in_bfloat16(method):
    model = copy.deepcopy(tiny_model() if rounds(method) else model_for(method)).cuda().bfloat16()
    ids = random_ids(2, 60).cuda()
    with apply(model, method):
        assert logits(model, ids).isfinite().all()
        assert written(model, ids, tokens=8).shape == (2, 8)


@pytest.mark.parametrize("method", [method for method in DECODING if not rounds(method)], ids=str)
def test_gradients_are_those_of_the_cpu(method):
    model, twin = both(method)
    ids, found = random_ids(2, 50), []
    for each in (model, twin):
        with apply(each, method):
            values = each(ids.to(each.device), use_cache=False).logits
            weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).to(each.device)
            parameters = [p for p in each.parameters() if p.requires_grad]
            found.append(
                [g if g is None else g.cpu() for g in torch.autograd.grad((values * weights).sum(), parameters, allow_unused=True)]
            )
    for ours, wanted in zip(found[1], found[0], strict=True):
        if wanted is not None:
            scale = float(wanted.abs().max())
            torch.testing.assert_close(ours, wanted, rtol=0, atol=5e-3 * scale + 1e-5)


@pytest.mark.parametrize("method", DECODING, ids=str)
def test_what_was_read_on_the_cpu_serves_the_gpu(method, tmp_path):
    model, twin = both(method)
    ids, more = random_ids(2, 40), random_ids(2, 12, seed=1)
    with torch.no_grad(), apply(model, method, warn=False), apply(twin, method, warn=False):
        cache, far = DynamicCache(config=model.config), DynamicCache(config=model.config)
        model(ids, **cache_argument(model, cache), use_cache=True)
        save(snapshot(cache), tmp_path / "read.safetensors", model)
        wanted = model(more, **cache_argument(model, cache), use_cache=True).logits
        restore(far, load(tmp_path / "read.safetensors", twin))
        taken = snapshot(far)
        for _ in range(2):
            found = twin(more.cuda(), **cache_argument(twin, far), use_cache=True).logits
            torch.testing.assert_close(found.cpu(), wanted, rtol=0, atol=2e-3)
            restore(far, taken)
        if hasattr(store := far.layers[0].store, "shelf"):
            blocks = [block for row in store.rows.values() for block in row.state.blocks]
            assert blocks
            assert all(k.device.type == "cpu" and k.is_pinned() for k, _ in blocks)


def test_blocks_lie_outside_the_device():
    (method,) = parse("infllm:block_size=16,num_blocks=2,local_window=32")
    model, ids = tiny_model(max_position_embeddings=64, num_hidden_layers=2).cuda(), random_ids(1, 4096).cuda()
    held = {}
    with apply(model, method), torch.no_grad():
        cache = DynamicCache(config=model.config)
        for end in range(256, 4097, 256):
            model(ids[:, end - 256 : end], **cache_argument(model, cache), use_cache=True)
            torch.cuda.synchronize()
            held[end] = torch.cuda.memory_allocated()
        blocks = cache.layers[0].store.rows[-1].state.blocks
    assert len(blocks) > 200
    assert all(k.device.type == "cpu" and k.is_pinned() for k, _ in blocks)
    representatives = 2 * 2 * 256 * 16 * 4 * 4  # layers, heads, blocks, dimensions: grows, a little
    assert held[4096] - held[2048] < representatives + 2**20
