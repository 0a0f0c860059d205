"""The loss of a training step without the logits of its whole sequences: they exist for a chunk of tokens at a time.

The model's forward pass is run in two parts, by putting something in the place of its decoder: first the decoder reads everything, and
what follows it sees one token; then what follows it (the output head with its adapters, soft caps, scales) sees the decoder's last hidden
states, chunk by chunk, and again when gradients are computed. So the head is the model's own, whatever it does to a token.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from longreach.decoding.reading import UNPREDICTED, next_token_losses
from longreach.engine.head import LOGITS, decoder_of, hidden_of, in_place_of_the_decoder, with_hidden
from longreach.training.samplers.base import Array

_CLOSE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative; logits of other numbers of tokens are rounded otherwise
_ROUGH = 0.02  # in 16 bits
_TRIED = 24  # tokens of each row of the check, at least
_TRIED_CHUNK = 7  # so that several chunks and a rest are tried

Forward = Callable[..., Any]


class CannotSplitError(Exception):
    """A forward pass does not come apart behind its decoder."""


class ChunkedLoss:
    """The mean loss of the next token, in nats, and its gradients, which are those of the model's own loss.

    Args: model: a causal language model. chunk: tokens whose logits exist at a time.
    """

    def __init__(self, model: PreTrainedModel, chunk: int) -> None:
        self.model, self.chunk = model, chunk
        self.decoder = decoder_of(model)

    def __call__(self, forward: Forward, inputs: Mapping[str, Any], count: Tensor | int | None = None) -> Tensor:
        """The loss of the `labels` [B, T] among the inputs of `forward`, which is the model or what wraps it.

        Args: count: what the sum is divided by (default: the number of labels).
        Raises: CannotSplitError.
        """
        given = {name: value for name, value in inputs.items() if name != "labels"}
        outputs: list[Any] = []

        def read(*args: Any, **kwargs: Any) -> Any:
            outputs.append(self.decoder(*args, **kwargs))
            return with_hidden(outputs[-1], hidden_of(outputs[-1])[:, :1])

        with in_place_of_the_decoder(self.model, read):
            forward(**given)
        if len(outputs) != 1:
            raise CannotSplitError(f"the forward pass of {type(self.model).__name__} calls its decoder {len(outputs)} times")
        hidden = hidden_of(outputs[0])[:, :-1].flatten(0, 1)
        labels = inputs["labels"][:, 1:].flatten().to(hidden.device)
        predicted = labels != UNPREDICTED
        if not bool(predicted.all()):
            hidden, labels = hidden[predicted], labels[predicted]
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        for part, targets in zip(hidden.split(self.chunk), labels.split(self.chunk), strict=True):
            total = total + checkpoint(self._sum, outputs[0], part, targets, use_reentrant=False)
        return total / (len(labels) if count is None else count)

    def _sum(self, output: Any, hidden: Tensor, targets: Tensor) -> Tensor:
        """The summed loss of tokens with the hidden states [N, hidden size]. Args: output: of the decoder."""
        with in_place_of_the_decoder(self.model, lambda *args, **kwargs: with_hidden(output, hidden[None])):
            logits: Tensor = self.model.forward(input_ids=targets[None])[0]
        return next_token_losses(logits[0], targets).sum()


def chunked_loss(
    model: PreTrainedModel, forward: nn.Module, ids: Array, *, chunk: int | None = None, leaves: Sequence[Tensor] = ()
) -> ChunkedLoss | None:
    """The loss in chunks, where it is proved on some `ids` [N] to be the model's own, with its gradients; None where it is not.

    Encoder-decoders and models with a loss or a head of their own kind are not split. Args: forward: the model or what wraps it. chunk:
    tokens (default: as many as LOGITS holds). leaves: what gradients are wanted of (default: the trained parameters).
    """
    chunk = chunk or max(1, LOGITS // model.config.get_text_config().vocab_size)
    if model.config.is_encoder_decoder or decoder_of(model) is model:
        return None
    agrees, count = None, _TRIED
    while agrees is None and count < 2 * max(len(ids), _TRIED):
        tried = torch.from_numpy(np.resize(ids, (2, count))).long().to(model.device)
        agrees, count = _agrees(ChunkedLoss(model, _TRIED_CHUNK), forward, tried, leaves), 2 * count
    return ChunkedLoss(model, chunk) if agrees else None


def _agrees(loss: ChunkedLoss, forward: nn.Module, ids: Tensor, leaves: Sequence[Tensor]) -> bool | None:
    """Whether loss and gradients on the ids [2, T] are those of the stock forward pass. None: on so few ids the loss hangs on
    nothing that is trained, as where that is a method's weights alone, which act behind longer chunks.
    """
    labels = ids.clone()
    labels[1, : ids.shape[1] // 3] = UNPREDICTED
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    inputs = {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), "position_ids": positions}
    weights = list(leaves) or [parameter for parameter in forward.parameters() if parameter.requires_grad]
    training = forward.training
    forward.eval()  # dropout would make any two passes differ
    try:
        stock: Tensor = forward(**inputs)[0]
        if not stock.requires_grad:
            return None
        wanted = torch.autograd.grad(stock, weights, allow_unused=True)
        try:
            ours = loss(forward, inputs)
            found = torch.autograd.grad(ours, weights, allow_unused=True)
        except Exception:  # noqa: BLE001 - whatever the model's code raises when it is taken apart: whole, it has just run
            return False
    finally:
        forward.train(training)
    close = _CLOSE.get(loss.model.dtype, _ROUGH)
    return _difference([ours.detach()], [stock.detach()]) <= close and _difference(found, wanted) <= close


def _difference(found: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> float:
    """The norm of the difference, as a share of the norm of what is wanted. None: a gradient of zeros."""
    apart = size = 0.0
    for one, other in zip(found, wanted, strict=True):
        if one is None and other is None:
            continue
        first, second = (0.0 if each is None else each.double() for each in (one, other))
        apart += float(torch.as_tensor(first - second).square().sum())
        size += float(torch.as_tensor(second).square().sum())
    return (apart / size) ** 0.5 if size else float(apart > 0)
