"""How much memory a checkpoint takes, and the longest context that fits: weighed on the model itself, and computed beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from longreach.decoding.reading import new_cache, prefill

SHARE = 0.9  # of the free memory may be used; the rest is for activations and for what else runs
_LENGTHS = (64, 128)  # tokens read to weigh the cache


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What one layer's cache takes for one text: `fixed` bytes, and `per_token` bytes for each of the last `limit` tokens (None: all)."""

    per_token: float
    fixed: float = 0.0
    limit: int | None = None

    def bytes_at(self, tokens: int) -> float:
        """Bytes after so many tokens."""
        return self.fixed + self.per_token * min(tokens, self.limit or tokens)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Args: weights: bytes in `dtype`, None where there are none here. free: bytes of the device, None where unknown.

    layers: of the cache. measured: they were weighed in a run, not computed. fits: the longest context, None where it cannot be known, 0
    where the weights alone do not fit. unlimited: memory does not grow with the text.
    """

    dtype: str
    device: str
    batch_size: int
    weights: int | None
    free: int | None
    layers: tuple[Layer, ...]
    measured: bool
    computed_per_1k: int | None

    @property
    def per_1k(self) -> int:
        """Bytes that 1024 more tokens of one text take once every sliding window is full."""
        return round(sum(layer.per_token for layer in self.layers if layer.limit is None) * 1024)

    @property
    def unlimited(self) -> bool:
        """Whether the cache stops growing."""
        return bool(self.layers) and self.per_1k == 0

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of the cache of the whole batch after so many tokens."""
        return round(self.batch_size * sum(layer.bytes_at(tokens) for layer in self.layers))

    @property
    def fits(self) -> int | None:
        """Tokens of each text of the batch that fit beside the weights, with room for the layer that is copied as it grows."""
        if self.free is None or self.weights is None or not self.layers or self.unlimited:
            return None
        room = SHARE * self.free - self.weights
        low, high = 0, 1
        while self._peak(high) <= room:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._peak(middle) <= room else (low, middle)
        return low

    def _peak(self, tokens: int) -> float:
        largest = max(layer.bytes_at(tokens) for layer in self.layers)
        return self.cache_bytes(tokens) + self.batch_size * largest


def weigh(model: PreTrainedModel) -> tuple[Layer, ...]:
    """Read short texts into an empty cache and weigh every layer of it. Works on weights that take no memory (`meta`), too.

    Layers are weighed at two lengths: what does not grow is fixed (states of recurrent layers); a sliding layer's limit is its own.
    """
    sizes = [[_bytes(layer) for layer in _filled(model, tokens)] for tokens in _LENGTHS]
    short, long = _LENGTHS
    found = []
    for layer, first, second in zip(_filled(model, long), *sizes, strict=True):
        limit = _limit(layer)
        if limit is not None and limit < long:  # full already
            found.append(Layer(per_token=second / limit, limit=limit))
            continue
        growth = (second - first) / (long - short)
        found.append(Layer(per_token=growth, fixed=second - growth * long, limit=limit))
    return tuple(found)


def computed(config: PreTrainedConfig, dtype: torch.dtype) -> int | None:
    """Bytes that 1024 tokens take by the config alone, were every layer to keep all of them: what most calculators say."""
    text: Any = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    layers, hidden = getattr(text, "num_hidden_layers", None), getattr(text, "hidden_size", None)
    if not (heads and layers and hidden):
        return None
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or hidden // heads
    return int(2 * layers * kv_heads * head_dim * dtype.itemsize * 1024)


@torch.no_grad()
def _filled(model: PreTrainedModel, tokens: int) -> list[Any]:
    cache = new_cache(model)
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.arange(tokens, device=model.device)[None] % vocabulary
    prefill(model, ids, cache=cache)
    return list(cache.layers)


def _limit(layer: Any) -> int | None:
    """Tokens that a sliding layer keeps."""
    window = getattr(layer, "sliding_window", None) if getattr(layer, "is_sliding", False) else None
    return None if window is None else max(1, window - 1)


def _bytes(layer: Any) -> int:
    """Of what the layer keeps; counters, which have no dimensions to speak of, are left out."""
    return sum({id(kept): math.prod(kept.shape) * kept.itemsize for kept in _tensors(vars(layer)) if kept.ndim > 1}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
