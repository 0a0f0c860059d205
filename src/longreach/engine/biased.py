"""Temperatures in encoders with a learned relative bias (T5 and its kin), and how sharp their attention is.

These families add the bias to plain products of queries and keys, so queries and bias divided by a temperature are exactly the logits
divided by it. Masks are added later, and stay what they are.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.attention.base import EncoderTemperature
from longreach.core.errors import UnsupportedError
from longreach.engine.window import stated_window

_PROBE_TOKENS = 8
_QUERIES = 512  # whose entropies are computed at a time


@contextmanager
def tempered(model: PreTrainedModel, method: EncoderTemperature) -> Iterator[None]:
    """Inside, the encoder's self-attention has the method's temperatures, for each text of a batch its own; undone on leaving.

    Raises: UnsupportedError for a model without such an encoder, or whose trained window is not known.
    """
    encoder = _encoder(model, method.spec)
    temperatures = _Temperatures(partial(method.temperature_at, window=_window(model, method)))
    with ExitStack() as undo:
        undo.callback(encoder.register_forward_pre_hook(temperatures.of_batch, with_kwargs=True).remove)
        for attention in _attentions(encoder):
            undo.callback(attention.q.register_forward_hook(temperatures.on_queries).remove)
            undo.callback(vars(attention).pop, "compute_bias", None)
            attention.compute_bias = partial(temperatures.on_bias, attention)
        _prove(model, encoder, temperatures, method.spec)
        yield


class _Temperatures:
    """1 / temperature of each text of the batch that the encoder reads. Its methods are the hooks, so copies of a model have their own.

    fixed: a temperature for all texts instead.
    """

    def __init__(self, of_length: Callable[[int], float]) -> None:
        self.of_length = of_length
        self.fixed: float | None = None
        self.factors: list[float] = [1.0]

    def of_batch(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(encoder.forward).bind(*args, **kwargs).arguments
        tokens = given.get("input_ids")
        mask: Any = given.get("attention_mask")
        rows, length = (given["inputs_embeds"] if tokens is None else tokens).shape[:2]
        padded = isinstance(mask, Tensor) and mask.ndim == 2
        lengths = mask.bool().sum(1).tolist() if padded else [length] * rows
        self.factors = [1 / (self.fixed or self.of_length(each)) for each in lengths]

    def on_queries(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self._scaled(output)

    def on_bias(self, attention: Any, *args: Any, **kwargs: Any) -> Tensor:
        return self._scaled(type(attention).compute_bias(attention, *args, **kwargs))

    def _scaled(self, values: Tensor) -> Tensor:
        """[B, ...], also of values [1, ...] that all texts share."""
        first = self.factors[0]
        if all(factor == first for factor in self.factors):
            return values if first == 1 else values * first
        wide = torch.promote_types(values.dtype, torch.float32)
        factors = torch.tensor(self.factors, dtype=wide, device=values.device)
        return (values * factors.view(-1, *[1] * (values.ndim - 1))).to(values.dtype)


@torch.no_grad()
def sharpness(model: PreTrainedModel, ids: Tensor, metric: str) -> float:
    """How sharply the encoder attends in texts `ids` [B, T] without padding: the mean over layers, heads and queries.

    Args: metric: `entropy` (nats), or `max_probability`.
    Raises: UnsupportedError for a model without such an encoder.
    """
    encoder = _encoder(model, metric)
    found: list[float] = []

    def see(weights: Tensor) -> None:
        parts = (part.float() for part in weights.split(_QUERIES, dim=2))
        values = [torch.special.entr(part).sum(-1) if metric == "entropy" else part.amax(-1) for part in parts]
        found.append(torch.cat(values, 2).double().mean().item())

    with _weights_seen(model, encoder, see):
        encoder(ids.to(model.device))
    return fmean(found)


@contextmanager
def _weights_seen(model: PreTrainedModel, encoder: nn.Module, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Inside, `see` gets the attention weights [B, H, T, T] of one layer of the encoder after the other."""
    implementation = model.config._attn_implementation
    modes = [(module, module.training) for module in encoder.modules()]
    with ExitStack() as undo:
        undo.callback(model.set_attn_implementation, implementation)
        model.set_attn_implementation("eager")  # the only one that returns weights
        for module, training in modes:
            undo.callback(setattr, module, "training", training)
            module.training = False
        for attention in _attentions(encoder):
            undo.callback(attention.register_forward_hook(lambda module, args, output: see(output[-1])).remove)
        yield


def _encoder(model: PreTrainedModel, method: str) -> Any:
    encoder = model.get_encoder()
    if encoder is model or not _attentions(encoder):
        why = "it has no encoder with a learned relative bias"
        raise UnsupportedError(method, type(model).__name__, why, "choose T5, Flan-T5, mT5 or UMT5")
    return encoder


def _attentions(encoder: nn.Module) -> list[Any]:
    return [module for module in encoder.modules() if hasattr(module, "compute_bias") and isinstance(getattr(module, "q", None), nn.Module)]


def _window(model: PreTrainedModel, method: EncoderTemperature) -> int:
    if (window := method.stated_window() or stated_window(model.config)) is None:
        why = "its config does not state how long the texts were that it was trained on"
        raise UnsupportedError(method.spec, type(model).__name__, why, "give that in tokens, as window_size=512")
    return window


@torch.no_grad()
def _prove(model: PreTrainedModel, encoder: Any, temperatures: _Temperatures, method: str) -> None:
    """Refuse a model whose attention the hooks do not change as they should: at temperature 1/2, its weights are squared.

    The first layer tells: what it reads does not hang on the temperature.
    """
    ids, layers = torch.arange(_PROBE_TOKENS, device=model.device)[None], len(_attentions(encoder))
    seen: list[Any] = []
    try:
        for temperature in (1.0, 0.5):
            temperatures.fixed = temperature
            with _weights_seen(model, encoder, seen.append):
                encoder(ids)
    except (TypeError, ValueError, AttributeError) as error:  # what encoders of pictures raise for text alone
        raise _unproven(model, method) from error
    finally:
        temperatures.fixed = None
    if not all(isinstance(weights, Tensor) and weights.shape[-2:] == (_PROBE_TOKENS, _PROBE_TOKENS) for weights in seen):
        raise _unproven(model, method)
    plain, sharp = seen[0].double(), seen[layers].double()
    squared = plain**2 / (plain**2).sum(-1, keepdim=True)
    if not torch.allclose(sharp, squared, rtol=0, atol=0.02):  # bfloat16, too
        raise _unproven(model, method)


def _unproven(model: PreTrainedModel, method: str) -> UnsupportedError:
    why = "its encoder's attention is not that of T5: a softmax of products and learned bias over all tokens"
    return UnsupportedError(method, type(model).__name__, why, "choose T5, Flan-T5, mT5 or UMT5")
