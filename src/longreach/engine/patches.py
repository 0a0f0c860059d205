"""Tokens that stand in for others in a cache: read aside, put in the place of as many tokens for a while, and taken out again.

So one reading of a text serves many questions, each about a fact of its own that no other question sees, nor the text itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from longreach.core.errors import LongreachError
from longreach.engine._groups import GroupedLayer
from longreach.engine._store import AGES, BandLayer
from longreach.engine.snapshots import restore, snapshot
from longreach.engine.stock import keeps_all

_KEYS, _VALUES = "keys", "values"


@dataclass(frozen=True, eq=False)
class _Part:
    """Of one layer: what it keeps of the tokens, [B, K, n, D] by channel, and, of those among its first tokens, these."""

    recent: dict[object, Tensor] = field(default_factory=dict)
    first: dict[object, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Patch:
    """What some tokens left in a cache. Args: start: slot of the first. count: how many. parts: of each layer."""

    start: int
    count: int
    parts: Sequence[_Part]


def patchable(cache: Cache) -> bool:
    """Whether tokens of the filled `cache` can be changed for others: each lies in a slot of its own, and nothing else was made of it.

    That is so of transformers' own layers, and of methods that only say which tokens are seen, where, and how strongly. It is not where
    a method chooses by content what it keeps or sees or how far away that is, nor of layers that carry a state.
    """
    return type(cache) is DynamicCache and not cache.offloading and all(map(_patchable, cache.layers))


def read_aside(cache: Cache, start: int) -> Patch:
    """What the tokens from the slot `start` on left in `cache`: those of the last forward pass, before they are taken back."""
    end = int(cache.get_seq_length())
    return Patch(start, end - start, [_part(layer, start, end) for layer in cache.layers])


@contextmanager
def taken_back(cache: Cache) -> Iterator[None]:
    """What is read inside, in one forward pass, is gone afterwards.

    Raises: LongreachError for a cache that is not `patchable`.
    """
    if not patchable(cache):
        raise LongreachError("what this cache read cannot be taken back to ask again")
    before = int(cache.get_seq_length())
    ours = all(isinstance(layer, BandLayer) for layer in cache.layers)
    taken = None if ours else snapshot(cache)
    try:
        yield
    finally:
        if taken is not None:
            restore(cache, taken)
        elif (count := int(cache.get_seq_length()) - before) > 0:
            cache.crop(-count)


@contextmanager
def patched(cache: Cache, patch: Patch) -> Iterator[None]:
    """Inside, the patch's tokens stand in `cache` in the place of those that were read there, as far as the cache still keeps them."""
    with torch.no_grad():
        before = [_swap(layer, part, patch) for layer, part in zip(cache.layers, patch.parts, strict=True)]
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, part in zip(cache.layers, before, strict=True):
                _swap(layer, part, patch)


def _patchable(layer: Any) -> bool:
    if isinstance(layer, BandLayer):
        aged = AGES in layer.recent.data  # every later token counts on from a token's age
        return (
            not isinstance(layer, GroupedLayer)
            and layer.store is None
            and layer.plan.chunk is None
            and not layer.plan.inserts
            and layer.stream.read is None
            and not aged
        )
    return layer is None or keeps_all(layer) or type(layer) is DynamicSlidingWindowLayer or type(layer).__name__ == "DummyLayer"


def _part(layer: Any, start: int, end: int) -> _Part:
    recent = {name: tensor[:, :, max(0, start - oldest) : end - oldest].clone() for name, tensor, oldest in _recent(layer)}
    first = {name: tensor[:, :, start:end].clone() for name, tensor in _first(layer)}
    return _Part(recent, first)


def _swap(layer: Any, part: _Part, patch: Patch) -> _Part:
    """Write the part's tokens into the layer's slots, and return those that stood there."""
    before = _Part()
    for name, tensor, oldest in _recent(layer):
        gone = max(0, oldest - patch.start)
        if gone < patch.count:
            here = tensor[:, :, patch.start + gone - oldest : patch.start + patch.count - oldest]
            new = part.recent[name]
            before.recent[name] = here.clone()
            here.copy_(new[:, :, new.shape[2] - here.shape[2] :])
    for name, tensor in _first(layer):
        here = tensor[:, :, patch.start : patch.start + patch.count]
        before.first[name] = here.clone()
        here.copy_(part.first[name])
    if isinstance(layer, BandLayer):
        layer.turn_again()
    return before


def _recent(layer: Any) -> Iterator[tuple[object, Tensor, int]]:
    """Each channel of the layer, its live tokens [B, K, n, D] and the slot of the first of these."""
    if isinstance(layer, BandLayer):
        yield from ((name, layer.recent.view(name), layer.oldest) for name in layer.recent.data)
    elif isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
        oldest = layer.get_seq_length() - layer.keys.shape[2]
        yield from ((_KEYS, layer.keys, oldest), (_VALUES, layer.values, oldest))


def _first(layer: Any) -> Iterator[tuple[object, Tensor]]:
    if isinstance(layer, BandLayer):
        yield from layer.first.items()
