"""Encoders whose queries see a memory of keys instead of the whole text, chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from longreach.attention.base import EncoderMemory
from longreach.core.errors import UnsupportedError
from longreach.engine.interface import interface

_NAME = "longreach encoder "
_PROBE_TOKENS = 8

Steps = Callable[[int], Sequence[tuple[range, range]]]


@contextmanager
def waiting(model: PreTrainedModel, method: EncoderMemory) -> Iterator[None]:
    """Inside, the queries of the model see what the method's memory holds; padding has no part in it. Undone on leaving.

    Raises: UnsupportedError for a model that is no encoder, or whose attention is more than a softmax of products over all tokens.
    """
    _prove(model, method.spec)
    with interface(model, f"{_NAME}{method.spec}", partial(_attention, method.steps), masks=_padding):
        yield


def _padding(*args: Any, attention_mask: Any = None, **kwargs: Any) -> Any:
    """The mask function registered with transformers: which tokens are none of padding, [B, T]; None: all."""
    return attention_mask


def _attention(
    steps: Steps, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
    scaling: float | None = None, dropout: float = 0.0, **kwargs: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention output [B, T, H, D] of q [B, H, T, D] and k, v [B, K, T, D]; 0 of padding."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))

    def read(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = []
        for queries, keys in steps(q.shape[2]):
            now, seen = slice(queries.start, queries.stop), slice(keys.start, keys.stop)
            found = scaled_dot_product_attention(q[:, :, now], k[:, :, seen], v[:, :, seen], dropout_p=dropout, scale=scaling)
            parts.append(found)
        return torch.cat(parts, 2)

    if mask is None or bool(mask.all()):
        return read(q, k, v).transpose(1, 2).contiguous(), None
    rows = []
    for row, real in enumerate(mask.bool()):
        places = real.nonzero()[:, 0]
        out = read(*(x[row : row + 1].index_select(2, places) for x in (q, k, v)))
        rows.append(torch.zeros_like(q[:1]).index_copy(2, places, out))
    return torch.cat(rows).transpose(1, 2).contiguous(), None


@torch.no_grad()
def _prove(model: PreTrainedModel, method: str) -> None:
    """Refuse a model that does not give its own outputs where all queries see all keys."""
    ids, asked = torch.arange(_PROBE_TOKENS, device=model.device)[None], []

    def whole(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        asked.append(module)
        return _attention(lambda length: [(range(length), range(length))], module, *args, **kwargs)

    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        own = model(ids)[0].double()
        with interface(model, f"{_NAME}probe", whole, masks=_padding):
            found = model(ids)[0].double()
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError, KeyError) as error:  # what other models raise for text alone
        raise _refused(model, method) from error
    finally:
        for module, training in modes:
            module.training = training
    if not asked or own.shape != found.shape or not torch.allclose(own, found, rtol=0, atol=0.02 * float(own.abs().max())):
        raise _refused(model, method)


def _refused(model: PreTrainedModel, method: str) -> UnsupportedError:
    why = "it is no encoder in which every token sees all others by a plain softmax of products"
    return UnsupportedError(method, type(model).__name__, why, "choose BERT, RoBERTa or one of their kin")
