"""Models as they are, without a method: the same attention and the same cache as transformers', computed without copies of the past.

In every forward pass, transformers joins all keys and values so far to the new ones, and, where a mask is given, repeats them for each
query head. Far into a text that costs more than attention itself.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from longreach.engine._fused import Merge, attend

NAME = "longreach_stock"
SHORT = 1024  # keys up to which attention is transformers' own, bit for bit
_SDPA = "sdpa"
_SPARE = 256  # tokens of room that a buffer gets when it has to grow: then so many tokens are written before it is copied again


@dataclass
class _Buffer:
    """Args: data: [B, K, capacity, D]. filled: tokens written; what somebody got a view of is never written again."""

    data: Tensor
    filled: int

    def continues(self, held: Tensor, count: int) -> bool:
        """Whether `held` is all that was written, and `count` tokens more have room."""
        return (
            held.data_ptr() == self.data.data_ptr()
            and held.shape[2] == self.filled
            and (held.shape[:2], held.shape[3], held.stride()) == (self.data.shape[:2], self.data.shape[3], self.data.stride())
            and self.filled + count <= self.data.shape[2]
        )


class GrowingLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values are views of buffers with room at the end, so that new ones are written behind them.

    As with a `DynamicLayer`, tensors that it gave out stay as they are: where another layer has written behind the same keys, or some
    were taken back, the next update moves to buffers of its own. `expected` tokens have room from the first update on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = 0
        self._buffers: dict[str, _Buffer] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values [B, K, T, D]: all of them so far."""
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):  # writing in place would break gradients
            joined: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return joined
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._joined("keys", self.keys, key_states)
        self.values = self._joined("values", self.values, value_states)
        return self.keys, self.values

    def reset(self) -> None:
        """Empty the layer."""
        super().reset()
        self._buffers = {}

    def _joined(self, name: str, held: Tensor | None, new: Tensor) -> Tensor:
        held = new[:, :, :0] if held is None or not held.numel() else held
        if held.dtype != new.dtype:
            return torch.cat([held, new], 2)
        before, count = held.shape[2], new.shape[2]
        buffer = self._buffers.get(name)
        if buffer is None or not buffer.continues(held, count):
            room = max(before + count, self.expected) + (_SPARE if before else 0)
            buffer = self._buffers[name] = _Buffer(new.new_empty(*new.shape[:2], room, new.shape[3]), before)
            buffer.data[:, :, :before] = held
        buffer.data[:, :, before : before + count] = new
        buffer.filled = before + count
        return buffer.data[:, :, : buffer.filled]


def keeps_all(layer: object) -> TypeGuard[DynamicLayer]:
    """Whether a layer of a cache keeps the keys and values of all tokens, and nothing else."""
    return type(layer) in (DynamicLayer, GrowingLayer)


def keeps_window(layer: object) -> TypeGuard[DynamicSlidingWindowLayer]:
    """Whether a layer of a cache keeps the keys and values of the tokens in its sliding window, and nothing else."""
    return type(layer) is DynamicSlidingWindowLayer


def stock_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache for the model, whose full layers grow in place."""
    cache = DynamicCache(config=model.config)
    cache.layers[:] = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def expect(cache: Cache, tokens: int) -> None:
    """Let the cache make room for so many tokens in all at once."""
    for layer in cache.layers:
        if isinstance(layer, GrowingLayer):
            layer.expected = tokens


@contextmanager
def stock_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, a model without a method attends to more than `SHORT` keys without copying them; on leaving, it is as it was.

    Only on a CPU, and only where it attends by transformers' `sdpa`. The sums are the same, in another order.
    """
    config = model.config.get_text_config()
    if config._attn_implementation != _SDPA or model.device.type != "cpu" or not model._supports_attention_backend:
        yield
        return
    # The name stays registered: it is entered for every token that is written, in several threads if need be.
    AttentionInterface._global_mapping.setdefault(NAME, _attention)
    AttentionMaskInterface._global_mapping.setdefault(NAME, AttentionMaskInterface._global_mapping[_SDPA])
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = _SDPA


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """The attention function registered with transformers: queries [B, H, T, D], keys and values [B, K, S, D] -> [B, T, H, D]."""
    if key.shape[2] <= SHORT or not _plain(module, query, key, value, options) or not _sees_all_before(attention_mask, query, key):
        own: Any = AttentionInterface._global_mapping[_SDPA]
        out: Tensor = own(module, query, key, value, attention_mask, **options)[0]
        return out, None
    given, count, merge = options.get("scaling"), query.shape[2], Merge()
    scale = query.shape[3] ** -0.5 if given is None else given
    past, whole = key.shape[2] - count, slice(0, count)
    merge.add(*attend(query, key[:, :, :past], value[:, :, :past], scale=scale), whole, count)
    merge.add(*attend(query, key[:, :, past:], value[:, :, past:], scale=scale, causal=count > 1), whole, count)
    return merge.result(None, query).transpose(1, 2).contiguous(), None


def _plain(module: Any, query: Tensor, key: Tensor, value: Tensor, options: dict[str, Any]) -> bool:
    """Whether this is a causal softmax, and nothing else, that needs no gradient."""
    causal = options.get("is_causal")
    others = options.get("dropout") or options.get("output_attentions")
    added = options.get("softcap") is not None or options.get("position_bias") is not None
    grad = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
    causal = getattr(module, "is_causal", True) if causal is None else causal
    return causal and not (others or added or grad) and key.shape[-1] == value.shape[-1] and query.dtype == key.dtype == value.dtype


_checked: tuple[weakref.ref[Tensor], bool] | None = None  # the mask that was looked at last: all layers of a pass get the same one


def _sees_all_before(mask: Tensor | None, query: Tensor, key: Tensor) -> bool:
    """Whether every query sees the keys up to its own, and none behind it."""
    global _checked
    count, total = query.shape[2], key.shape[2]
    if mask is None:
        return count == 1
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[-2:] != (count, total) or count == total:
        return False
    known = _checked  # once, for another thread may put its own there
    if known is None or known[0]() is not mask:
        past = total - count
        seen = torch.ones(count, count, dtype=torch.bool, device=mask.device).tril()
        known = _checked = weakref.ref(mask), bool(mask[..., :past].all()) and bool((mask[..., past:] == seen).all())
    return known[1]
