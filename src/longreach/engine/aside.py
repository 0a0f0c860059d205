"""Reads texts aside: with the model's first layers, under other weights than its own, each text alone and as the plain model would."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from longreach.engine.head import hidden_of
from longreach.engine.rotation import refusal

# Whether attention is that of the plain model, of a text of its own that no cache keeps.
ASIDE: ContextVar[bool] = ContextVar("a text is read aside", default=False)


class Aside(nn.Module):
    """A model's decoder, cut off after some layers. Args: inner: the forward pass of its decoder, where it is not that of its class."""

    def __init__(self, model: PreTrainedModel, inner: Any = None) -> None:
        super().__init__()
        self.decoder, self.inner = model.base_model, inner
        self.name = stack_of(model)[0]

    def read(self, embeds: Tensor, layers: int, weights: Mapping[str, Tensor]) -> Tensor:
        """The last states [N, L, hidden_size], behind the norm, of N texts.

        Args: embeds: [N, L, hidden_size], as the decoder takes them. weights: in the place of the decoder's own, by their names in it.
        """
        names = list(weights)

        def run(embeds: Tensor, *values: Tensor) -> Tensor:
            given = {f"decoder.{name}": value for name, value in zip(names, values, strict=True)}
            with self._cut_off(layers):
                states: Tensor = functional_call(self, given, (embeds,))
            return states

        # Layers that are computed again for their gradients would be under their own weights then: it is done for all of this at once.
        if self.decoder.training and torch.is_grad_enabled() and getattr(self.decoder, "gradient_checkpointing", False):
            again: Tensor = checkpoint(run, embeds, *weights.values(), use_reentrant=False)
            return again
        return run(embeds, *weights.values())

    def forward(self, embeds: Tensor) -> Tensor:
        """The decoder's last states."""
        inner = self.inner or type(self.decoder).forward.__get__(self.decoder)
        return hidden_of(inner(inputs_embeds=embeds, use_cache=False))

    @contextmanager
    def _cut_off(self, layers: int) -> Iterator[None]:
        path, _, name = self.name.rpartition(".")
        parent = self.decoder.get_submodule(path)
        whole: Any = parent._modules[name]
        kept = whole[:layers]
        again = [layer for layer in kept if getattr(layer, "gradient_checkpointing", False)]
        token = ASIDE.set(True)
        parent._modules[name] = kept
        for layer in again:
            layer.gradient_checkpointing = False
        try:
            yield
        finally:
            for layer in again:
                layer.gradient_checkpointing = True
            parent._modules[name] = whole
            ASIDE.reset(token)


def stack_of(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name of the decoder's layers in it, and the layers. Raises: UnsupportedError."""
    count = model.config.get_text_config().num_hidden_layers
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    raise refusal(model, "its layers do not stand in one list")
