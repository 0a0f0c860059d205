"""What transformers calls the cache: `past_key_values`, and from 5.24 on `cache`. No other file knows."""

import inspect
from functools import cache as memoized
from typing import Any

from torch import nn
from transformers import Cache, LlamaForCausalLM

_NAMES = ("cache", "past_key_values")  # newest first


def cache_argument(model: nn.Module, cache: Cache | None) -> dict[str, Any]:
    """The keyword argument that hands `cache` to a model's forward pass or `generate`: `model(ids, **cache_argument(model, cache))`."""
    kind: Any = type(model)
    return {_name(kind): cache}


def take_cache(kwargs: dict[str, Any]) -> Cache | None:
    """Take the cache out of the keyword arguments of a forward pass, whatever it is called there; None: there is none."""
    given = [kwargs.pop(name) for name in _NAMES if name in kwargs]
    return next((cache for cache in given if cache is not None), None)


def cache_of(output: Any) -> Cache | None:
    """The cache that a forward pass returned."""
    held = [*output.keys()] if hasattr(output, "keys") else ()  # asked for a name by itself, an output without a cache warns
    return next((output[name] for name in _NAMES if name in held), None)


def without_cache(output: Any) -> Any:
    """What a forward pass returned, for who asked for no cache."""
    return type(output)(**{name: each for name, each in output.items() if name not in _NAMES}) if hasattr(output, "items") else output


@memoized
def _name(model: Any) -> str:
    """By the signature of its forward: code that a checkpoint brings may have another name than the library."""
    taken = inspect.signature(model.forward).parameters
    return next((name for name in _NAMES if name in taken), "") or _name(LlamaForCausalLM)
