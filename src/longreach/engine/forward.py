"""The forward pass of the transformer in a model, without a head: found, called by names, replaced, and compared with another."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def transformer_of(model: PreTrainedModel) -> Any:
    """What turns tokens into states: the decoder, also of a model that sees or hears, or the encoder."""
    return model.get_decoder() or model.base_model


def named_inputs(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a forward pass, each by its name."""
    bound = inspect.signature(forward).bind(*args, **kwargs)
    inputs = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            inputs |= inputs.pop(name, {})
    return inputs


def apart(ours: Tensor, wanted: Tensor) -> float:
    """How far states are from others, of the length of those; where those are not finite they do not count."""
    known = wanted.isfinite()
    return float((ours - wanted)[known].double().norm() / wanted[known].double().norm())


def rounding(model: PreTrainedModel) -> float:
    """The most that rounding alone puts states apart, when two ways compute the same."""
    return 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Inside, the module runs `forward`: a method of an object, so that a copy of the module has its own."""
    before = vars(module).get("forward")
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]
        if before is not None:
            vars(module)["forward"] = before
