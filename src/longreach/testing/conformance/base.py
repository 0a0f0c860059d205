"""What the suites are made of: checks, the comparisons that they count, and the models that they run on."""

import sys
from collections.abc import Callable, Iterable
from contextvars import Context, ContextVar
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from longreach.cache.trained.base import Recurrent
from longreach.core.method import Method
from longreach.engine.cache_argument import cache_argument
from longreach.engine.prompt import prompt_end
from longreach.engine.weights import equip, needs_weights, own_weights
from longreach.testing.models import FAMILIES, tiny_model

Tier = Literal["contract", "method", "example"]
WINDOW = 32  # trained window of the models: shorter than LENGTH, so that methods which act beyond it are seen to act
LENGTH = 50
PROMPT = 24  # slot where every prompt ends: in the middle of chunks, and before some left-padded rows begin
_LAYERS = 2  # of the models
TOLERANCE = 1e-4  # of float32 logits, whose standard deviation is 1 to 2


@dataclass(frozen=True, kw_only=True)
class Check:
    """A check of a suite.

    Args: run: checks one setting of a method, raises AssertionError, returns how many comparisons it made. applies: to this method?
    settings: name of the list in the method's file that it is run on; a file without NEUTRAL is checked with its EXAMPLES. tier: `example`
    is run on every setting; `method` on the first of each method, for what cannot hang on the setting (undoing, copies, seeds); `contract`
    on one method, for what the engine does in front of all of them (refusals).
    """

    run: Callable[[Any], int]
    applies: Callable[[Method], bool]
    settings: str = "EXAMPLES"
    tier: Tier = "example"

    @property
    def name(self) -> str:
        """The function's name without `check_`: what a method's XFAIL calls it."""
        return self.run.__name__.removeprefix("check_")


def require(condition: bool, message: str) -> int:
    """Raise AssertionError unless `condition`; 1 comparison."""
    if not condition:
        raise AssertionError(message)
    return 1


def close(ours: Tensor, wanted: Tensor, what: str, *, tolerance: float = TOLERANCE) -> int:
    """Raise AssertionError unless two tensors of one shape are finite and differ by `tolerance` at most; returns their count of numbers."""
    require(ours.shape == wanted.shape, f"{what}: shape {tuple(ours.shape)}, wanted {tuple(wanted.shape)}")
    require(bool(ours.isfinite().all() and wanted.isfinite().all()), f"{what}: not finite")
    worst = float((ours - wanted).abs().max()) if ours.numel() else 0.0
    require(worst <= tolerance, f"{what}: differs by {worst:.2g}, allowed {tolerance:g}")
    return ours.numel()


def same(ours: Tensor, wanted: Tensor, what: str) -> int:
    """Raise AssertionError unless two tensors are equal bit for bit; returns how many numbers they hold."""
    require(ours.shape == wanted.shape, f"{what}: shape {tuple(ours.shape)}, wanted {tuple(wanted.shape)}")
    differ = ours != wanted
    some = f"as {ours[differ][:4].tolist()} for {wanted[differ][:4].tolist()}"
    require(not bool(differ.any()), f"{what}: {int(differ.sum())} of {ours.numel()} numbers differ, {some}")
    return ours.numel()


def moves(method: Method, ours: Tensor, stock: Tensor) -> int:
    """Raise AssertionError unless the method changed the logits, or says by its file's NEUTRAL that it does not."""
    moved = float((ours - stock).abs().max())
    neutral = getattr(sys.modules[type(method).__module__], "NEUTRAL", ())
    return require(moved > 0.1 or method in neutral, f"{method} moves the logits by {moved:.2g} only")


@cache
def shared_model(family: str = "llama", window: int = WINDOW) -> PreTrainedModel:
    """A tiny model that checks share; they leave it as it was (one of them proves it)."""
    return _small_model(family, window)


def model_for(method: Method, family: str = "llama", window: int = WINDOW) -> PreTrainedModel:
    """The shared model for a method: with random weights for those that it has of its own."""
    if not needs_weights((method,)):
        return _double(family, window) if rounds(method) else shared_model(family, window)
    return _equipped(method, family, window)


def new_model(method: Method, window: int = WINDOW) -> PreTrainedModel:
    """The same, one of its own."""
    model = with_weights(_small_model("llama", window), method)
    return model.double() if rounds(method) else model


def _small_model(family: str, window: int) -> PreTrainedModel:
    """One of two layers, which is enough for what differs by layer: a third makes every check half as slow again."""
    types = FAMILIES[family][1].get("layer_types")
    kinds = {} if types is None else {"layer_types": types[:_LAYERS]}
    return tiny_model(family, num_hidden_layers=_LAYERS, max_position_embeddings=window, **kinds)


def first(method: Method) -> bool:
    """Whether it is the first setting in its method's file: that is checked on every shape of model, the others on Llama alone."""
    examples = getattr(sys.modules[type(method).__module__], "EXAMPLES", (method,))
    return bool(examples[0] == method)


DRAWN: ContextVar[str] = ContextVar("drawn", default="")  # the check that takes some shapes of model instead of all: see `shapes`


def shapes(method: Method, first_of_all: str, *others: str) -> list[str]:
    """The shapes of model to check a method on: all of them for the first setting in its file, for other settings the first.

    Where `DRAWN` names the check, half of `others`: by the names of method, check and shape, so always the same ones, and so that methods
    and checks together meet every shape.
    """
    if not first(method):
        return [first_of_all]
    check = DRAWN.get()
    return [first_of_all, *(shape for shape in others if not check or sha256(f"{method.spec} {check} {shape}".encode()).digest()[0] % 2)]


def rounds(method: Method) -> bool:
    """Whether two ways to compute the same may round to different numbers, or rounding grow from window to window: only float64 makes
    the one rare and the other small enough.
    """
    return bool(getattr(method, "rounds", False)) or (isinstance(method, Recurrent) and method.feeds_back)


@cache
def _double(family: str, window: int) -> PreTrainedModel:
    return _small_model(family, window).double()


@cache
def _equipped(method: Method, family: str, window: int) -> PreTrainedModel:
    model = with_weights(_small_model(family, window), method)
    return model.double() if rounds(method) else model


def with_weights(model: PreTrainedModel, method: Method) -> PreTrainedModel:
    """The model with random weights for those that the method has of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in own_weights(equip(model, method)).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """Logits [B, T, V] of one forward pass without a cache."""
    found: Tensor = model(ids, attention_mask=mask, use_cache=False).logits
    return found


def row_logits(model: PreTrainedModel, ids: Tensor, padding: int) -> Tensor:
    """`logits` of a row by itself that has so much padding in a batch: its prompt ends at the same token."""

    def alone() -> Tensor:
        with prompt_end(PROMPT - padding):
            return logits(model, ids)

    return Context().run(alone)


@torch.no_grad()
def cached_logits(model: PreTrainedModel, ids: Tensor, sizes: Iterable[int], mask: Tensor | None = None) -> Tensor:
    """Logits [B, T, V] of forward passes over `sizes` tokens each, one after the other through one cache."""
    past = DynamicCache(config=model.config.get_text_config())
    parts, end = [], 0
    for size in sizes:
        begin, end = end, min(end + size, ids.shape[1])
        part_mask = None if mask is None else mask[:, :end]
        parts.append(model(ids[:, begin:end], attention_mask=part_mask, **cache_argument(model, past), use_cache=True).logits)
    require(end == ids.shape[1], f"chunks cover {end} of {ids.shape[1]} tokens")
    return torch.cat(parts, 1)


def written(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, *, tokens: int = 6, **options: Any) -> Tensor:
    """The tokens [B, tokens] that `generate` adds, greedy unless `options` say otherwise; no end-of-text before."""
    mask = torch.ones_like(ids) if mask is None else mask
    given = {"do_sample": False, "min_new_tokens": tokens, "max_new_tokens": tokens, "pad_token_id": 0, **options}
    out: Tensor = model.generate(ids, attention_mask=mask, **given)  # type: ignore[operator]  # a module's attributes may be tensors
    return out[:, ids.shape[1] :]


def left_padding(lengths: Iterable[int], width: int = LENGTH) -> Tensor:
    """Attention mask [B, width] of rows with so many real tokens, at the right."""
    return torch.stack([(torch.arange(width) >= width - length).long() for length in lengths])


def gradients(model: PreTrainedModel, values: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
    """Of a random sum of values [..., n, E], by the name of the parameter. mask: [..., n], those that count."""
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    if mask is not None:
        weights = weights * mask[..., None]
    named = dict(model.named_parameters())
    found = torch.autograd.grad((values * weights).sum(), list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def loss_gradients(model: PreTrainedModel, ids: Tensor, mask: Tensor | None = None, labels: Tensor | None = None) -> dict[str, Tensor]:
    """Of the loss of a batch (labels: its own tokens, where none are given), by the name of the parameter."""
    model.zero_grad()
    model(ids, attention_mask=mask, labels=ids if labels is None else labels, use_cache=False).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
