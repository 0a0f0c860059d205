"""A model's forward pass in two parts: its decoder, and what follows that (the output head with its adapters, soft caps, scales).

Something is put in the place of the decoder: then what follows sees these hidden states, whatever it does to them is the model's own.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

LOGITS = 2**25  # float32 values of the logits of one chunk (128 MiB)


class _StandIn:
    """Is called in place of a module, and has all else of it. The module's own hooks are not run."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self._module, self._call = module, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def decoder_of(model: PreTrainedModel) -> nn.Module:
    """What reads the tokens, below the output head; the model itself where it has no part of that kind."""
    decoder: nn.Module = model.get_decoder()
    return model.base_model if decoder is model else decoder


@contextmanager
def in_place_of_the_decoder(model: PreTrainedModel, call: Callable[..., Any]) -> Iterator[None]:
    """Inside, the model's forward pass calls this where it would call its decoder."""
    decoder = decoder_of(model)
    parent, _, name = next(name for name, module in model.named_modules() if module is decoder).rpartition(".")
    modules: dict[str, Any] = model.get_submodule(parent)._modules
    modules[name] = _StandIn(decoder, call)
    try:
        yield
    finally:
        modules[name] = decoder


def hidden_of(output: Any) -> Tensor:
    """The last hidden states [B, T, hidden size] among a decoder's output, which they come first in."""
    hidden: Tensor = output if isinstance(output, Tensor) else output[0]
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """The output with other last hidden states."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, tuple):
        return (hidden, *output[1:])
    first = next(iter(output))
    return type(output)(**{**output, first: hidden})


@torch.no_grad()
def entropies(model: PreTrainedModel, output: Any, hidden: Tensor, ids: Tensor) -> Tensor:
    """[N] float32: -log p in nats of the tokens `ids` [N] behind the hidden states [N, hidden size]; output: of the decoder.

    No more than LOGITS values of logits exist at a time.
    """
    found = []
    chunk = max(1, LOGITS // model.config.get_text_config().vocab_size)
    for part, targets in zip(hidden.split(chunk), ids.split(chunk), strict=True):
        with in_place_of_the_decoder(model, lambda *args, part=part, **kwargs: with_hidden(output, part[None])):
            logits: Tensor = model.forward(input_ids=targets[None])[0]
        exact = logits[0].to(torch.promote_types(logits.dtype, torch.float32))
        found.append(cross_entropy(exact, targets.to(logits.device), reduction="none").float())
    return torch.cat(found)
