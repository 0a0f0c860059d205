"""Snapshots of caches that cannot be what they say are refused by name."""

import copy

import pytest
import torch
from transformers import Cache, DynamicCache, StaticCache
from transformers.cache_utils import LinearAttentionLayer

from longreach.core.errors import LongreachError
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.layer import LayerEngine
from longreach.engine.snapshots import restore, snapshot
from longreach.testing.conformance.base import same
from longreach.testing.models import random_ids, tiny_model
from tests.engine.caches import filled, read

SINKS, H2O, PLACED, SCALED = "sinks:window_size=16", "h2o:budget=16,slack=4", "self_extend:neighbours=8,group=4", "linear:factor=4"
CHOSEN = "longheads:chunk_size=5,num_chunks=5"


def interrupted(model, cache, index=1):
    """Leave the cache half written by a forward pass."""

    def stop(module, args, output):
        raise KeyError("stop")

    hook = model.model.layers[index].register_forward_hook(stop)
    with pytest.raises(KeyError, match="stop"):
        read(model, cache, random_ids(1, 3))
    hook.remove()


@pytest.mark.parametrize("spec", [None, SCALED, PLACED, H2O])
def test_a_forward_pass_that_was_interrupted(spec):
    model, more = tiny_model(), random_ids(1, 6, seed=1)
    with apply(model, spec):
        cache = filled(model)
        taken = snapshot(cache)
        wanted = read(model, cache, more)
        restore(cache, taken)
        interrupted(model, cache)
        with pytest.raises(LongreachError, match="half written by an interrupted forward pass; start with a new cache"):
            snapshot(cache)
        restore(cache, taken)
        same(read(model, cache, more), wanted, "after a restore")


@pytest.mark.parametrize("spec", [PLACED, H2O])
def test_a_forward_pass_that_was_interrupted_inside_a_layer(spec, monkeypatch):
    model, more = tiny_model(num_hidden_layers=1), random_ids(1, 6, seed=1)
    with apply(model, spec):
        cache = filled(model)
        taken = snapshot(cache)
        wanted = read(model, cache, more)
        monkeypatch.setattr(LayerEngine, "_write", lambda self, *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            read(model, cache, more)
        monkeypatch.undo()
        with pytest.raises(LongreachError, match="half written by an interrupted forward pass"):
            snapshot(cache)
        restore(cache, taken)
        same(read(model, cache, more), wanted, "after a restore")


@pytest.mark.parametrize("spec", [SCALED, PLACED])
def test_a_method_that_is_no_longer_applied(spec):
    model = tiny_model()
    with apply(model, spec):
        cache = filled(model)
        taken = snapshot(cache)
    with pytest.raises(LongreachError, match="no longer applied; start with a new cache"):
        snapshot(cache)
    for target in (cache, DynamicCache(config=model.config)):
        with pytest.raises(LongreachError, match=f"taken under {spec}, which is no longer applied; apply it and read again"):
            restore(target, taken)
        with apply(model, spec), pytest.raises(LongreachError, match="which is no longer applied"):
            restore(target, taken)


@pytest.mark.parametrize("spec", [SCALED, PLACED])
def test_what_was_read_under_another_method(spec):
    model, more = tiny_model(), random_ids(1, 6, seed=1)
    stock = filled(model)
    outside = snapshot(stock)
    with apply(model, spec):
        cache = filled(model)
        inside, wanted = snapshot(cache), read(model, cache, more)
        for target, taken in ((stock, inside), (cache, outside)):
            with pytest.raises(LongreachError, match="filled under something else than the snapshot's"):
                restore(target, taken)
        smuggled = DynamicCache(config=model.config)
        restore(smuggled, outside)
        with pytest.raises(LongreachError, match="filled outside the applied longreach method"):
            read(model, smuggled, more)
        restore(cache, inside)
        same(read(model, cache, more), wanted, "after the refusals")
        cache.reset()  # it still counts as one of the method's
        with pytest.raises(LongreachError, match="filled under something else than the snapshot's"):
            restore(cache, outside)


def test_gradients_would_be_lost():
    model, ids = tiny_model(), random_ids(1, 10)
    for spec in (None, PLACED):
        with apply(model, spec):
            cache = DynamicCache(config=model.config)
            model(ids, **cache_argument(model, cache), use_cache=True)
            with pytest.raises(LongreachError, match=r"carries gradients, which a snapshot would lose; read under torch\.no_grad"):
                snapshot(cache)


def test_gradients_reach_what_is_read_after_a_restore():
    model, more = tiny_model(), random_ids(1, 6, seed=1)
    with apply(model, CHOSEN, warn=False):
        cache = filled(model, 33)
        taken = snapshot(cache)
        found = []
        for _ in range(2):
            restore(cache, taken)
            loss = model(more, **cache_argument(model, cache), use_cache=True).logits.square().mean()
            found.append(torch.autograd.grad(loss, model.lm_head.weight)[0])
    same(found[1], found[0], "the second time")


class Rememberer(DynamicCache):
    """Holds more than its layers."""


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda config: StaticCache(config=config, max_cache_len=16), "a cache with a StaticLayer has no snapshots; use a DynamicCache"),
        (lambda config: Cache(layers=[LinearAttentionLayer()]), "a cache with a LinearAttentionLayer has no snapshots"),
        (lambda config: Rememberer(config=config), "a Rememberer has no snapshots; use a DynamicCache"),
        (lambda config: DynamicCache(config=config), "this cache is empty"),
        (lambda config: None, "a NoneType is no cache; give one that a model has filled"),
    ],
)
def test_caches_without_snapshots(make, says):
    with pytest.raises(LongreachError, match=says):
        snapshot(make(tiny_model().config))


def test_an_offloaded_cache():
    cache = filled(tiny_model())
    cache.offloading = True
    with pytest.raises(LongreachError, match="offloaded has no snapshots; use one with offloading=False"):
        snapshot(cache)


def test_a_static_cache_is_the_engines_own_under_a_method():
    model, more = tiny_model(), random_ids(1, 6, seed=1)
    with apply(model, PLACED):
        cache = filled(model, cache=StaticCache(config=model.config, max_cache_len=64))
        taken = snapshot(cache)
        wanted = read(model, cache, more)
        restore(cache, taken)
        same(read(model, cache, more), wanted, "after a restore")


def test_a_copy_of_a_cache():
    model = tiny_model()
    with apply(model, PLACED), pytest.raises(LongreachError, match="filled outside the applied longreach method"):
        snapshot(copy.deepcopy(filled(model)))


@pytest.mark.parametrize(("there", "taken_of"), [(3, 2), (2, 3)])
def test_another_number_of_layers(there, taken_of):
    taken = snapshot(filled(tiny_model(num_hidden_layers=taken_of)))
    cache = filled(tiny_model(num_hidden_layers=there))
    with pytest.raises(LongreachError, match=f"the snapshot has {taken_of} layers, not those of this cache"):
        restore(cache, taken)
    assert cache.get_seq_length() == 20


@pytest.mark.parametrize(
    ("other", "now"),
    [
        (lambda: tiny_model("llama_mha"), r"4 heads of 16 dimensions \(float32, cpu\)"),
        (lambda: tiny_model(head_dim=8), r"2 heads of 8 dimensions \(float32, cpu\)"),
        (lambda: tiny_model().bfloat16(), r"2 heads of 16 dimensions \(bfloat16, cpu\)"),
        (lambda: tiny_model("mistral"), r"2 heads of 16 dimensions \(float32, cpu\) in a window of 8"),
    ],
    ids=["heads", "head dim", "dtype", "window"],
)
def test_a_cache_that_a_model_of_another_shape_filled(other, now):
    model, more = other(), random_ids(1, 6, seed=1)
    cache, taken = filled(model), snapshot(filled(tiny_model()))
    before = snapshot(cache)
    wanted = read(model, cache, more)
    restore(cache, before)
    with pytest.raises(LongreachError, match=f"filled by another model \\({now}\\) than the snapshot .*; give its own, or an empty one"):
        restore(cache, taken)
    same(read(model, cache, more), wanted, "after the refusal")


def test_a_static_cache_does_not_get_other_layers():
    model = tiny_model()
    with pytest.raises(LongreachError, match="a cache with a StaticLayer has no snapshots"):
        restore(StaticCache(config=model.config, max_cache_len=64), snapshot(filled(model)))


def test_what_is_no_snapshot():
    cache = filled(tiny_model())
    for cache_given, given, name in ((snapshot(cache), cache, "DynamicCache"), (cache, None, "NoneType")):
        with pytest.raises(LongreachError, match=rf"a {name} is no snapshot; call snapshot\(cache\), then restore\(cache, taken\)"):
            restore(cache_given, given)
