"""Single attention heads of a model: what decides where they look, and the model without some of them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.errors import UnsupportedError
from longreach.engine._own import own_attention
from longreach.engine.interface import interface
from longreach.engine.rotation import Attention

Head = tuple[int, int]  # layer and head, each from 0
Observer = Callable[[int, Tensor, Tensor, float], None]  # (layer, q [B, H, T, D] and k [B, K, T, D], rotated, scale of the logits)

_NAME = "longreach_heads"
_TOKENS = 4


@contextmanager
def observed(model: PreTrainedModel, attentions: Sequence[Attention], observer: Observer) -> Iterator[None]:
    """Inside, the observer sees the queries and keys of every layer, as the model compares them; the model works as always."""
    implementation = model.config.get_text_config()._attn_implementation
    layers = {id(attention.module): index for index, attention in enumerate(attentions)}

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
        scale = options.get("scaling")
        observer(layers[id(module)], query, key, query.shape[-1] ** -0.5 if scale is None else scale)
        mask = attention_mask.own_mask(implementation)
        return own_attention(module, implementation, options)(query, key, value, mask), None

    with interface(model, _NAME, attend):
        yield


@contextmanager
def without_heads(model: PreTrainedModel, attentions: Sequence[Attention], heads: Collection[Head]) -> Iterator[None]:
    """Inside, the output of these heads is zero before it reaches its layer's output projection.

    Raises: UnsupportedError for a model whose output projections are not found.
    """
    projections = _output_projections(model, attentions) if heads else []
    with ExitStack() as undo:
        for layer in sorted({layer for layer, _ in heads}):
            kept = torch.ones(attentions[layer].num_heads, dtype=torch.bool, device=model.device)
            kept[[head for of, head in heads if of == layer]] = False
            hook = projections[layer].register_forward_pre_hook(_zeroing(kept))
            undo.callback(hook.remove)
        yield


def _zeroing(kept: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def zero(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        by_head = args[0].unflatten(-1, (len(kept), -1))
        return (by_head.masked_fill(~kept[:, None], 0.0).flatten(-2), *args[1:])

    return zero


def _output_projections(model: PreTrainedModel, attentions: Sequence[Attention]) -> list[nn.Module]:
    """The module of each layer that takes all its heads' outputs: the first with a matrix that is called after attention, on their size.

    Raises: UnsupportedError where a layer has none.
    """
    found: dict[int, nn.Module] = {}
    waiting: dict[int, int] = {}  # layer -> size of its heads' outputs together
    layers = {id(attention.module): index for index, attention in enumerate(attentions)}

    def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
        b, h, t, _ = query.shape
        waiting[layers[id(module)]] = h * value.shape[-1]
        return value.new_zeros(b, t, h, value.shape[-1]), None

    def watching(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def watch(module: nn.Module, args: tuple[Any, ...]) -> None:
            if layer not in found and args and isinstance(args[0], Tensor) and args[0].shape[-1] == waiting.get(layer):
                found[layer] = module

        return watch

    ids = torch.arange(_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size
    with ExitStack() as undo:
        for layer, attention in enumerate(attentions):
            for module in attention.module.modules():
                if getattr(getattr(module, "weight", None), "ndim", 0) == 2:
                    undo.callback(module.register_forward_pre_hook(watching(layer)).remove)
        with torch.no_grad(), interface(model, f"{_NAME}_probe", attend):
            model(ids, use_cache=False)
    if len(found) < len(attentions):
        why = f"the output projection of its attention layer {min(set(range(len(attentions))) - set(found))} was not found"
        raise UnsupportedError("heads", type(model).__name__, why, "choose a model whose heads meet in one linear layer")
    return [found[layer] for layer in range(len(attentions))]
