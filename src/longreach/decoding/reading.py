"""Reads ids into a model in chunks: memory is bounded by chunk times window, and no logits exist but those asked for."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Cache, PreTrainedModel

from longreach.core.errors import InputError
from longreach.core.progress import SILENT, Progress
from longreach.engine.cache_argument import cache_argument
from longreach.engine.prompt import prompt_end
from longreach.engine.stock import expect, stock_attention, stock_cache
from longreach.engine.whole_length import whole_length

CHUNK = 512
UNPREDICTED = -100  # transformers' label for a token that is not predicted


def new_cache(model: PreTrainedModel) -> Cache:
    """An empty cache for `model`; under an applied method the engine fills it with its own layers at the first forward."""
    return stock_cache(model)


def check_eval(model: PreTrainedModel) -> None:
    """Raise InputError for a model in training mode."""
    if model.training:
        raise InputError("the model is in training mode, where dropout makes results random; call model.eval() first")


def read(
    model: PreTrainedModel,
    ids: Tensor,
    *,
    cache: Cache | None = None,
    chunk_size: int = CHUNK,
    logits: Literal["all", "last"] = "last",
    progress: Progress = SILENT,
    **inputs: Any,
) -> Iterator[tuple[int, Tensor]]:
    """Feed `ids` [B, T] chunk by chunk, after what `cache` already holds.

    Yields (index of the chunk's first token in `ids`, logits): for `all`, [B, n, V] of every chunk; for `last`, once, [B, 1, V] after
    the last token. `inputs` go to every forward call. No gradients. Read into an empty cache, `ids` are the prompt.
    Raises: InputError for an encoder-decoder, which does not predict a text while it reads it.
    """
    if model.config.is_encoder_decoder:
        raise InputError(f"{type(model).__name__} is an encoder-decoder, and this needs a causal language model")
    cache = new_cache(model) if cache is None else cache
    total = ids.shape[1]
    whole = cache.get_seq_length() + total
    expect(cache, whole)
    for start in range(0, total, chunk_size):
        part = ids[:, start : start + chunk_size]
        last = start + part.shape[1] == total
        with torch.no_grad(), stock_attention(model), whole_length(model, whole), prompt_end(whole):
            out = model(part, **cache_argument(model, cache), use_cache=True, logits_to_keep=0 if logits == "all" else 1, **inputs)
        progress.advance(part.numel())
        if logits == "all" or last:
            yield start, out.logits


def prefill(model: PreTrainedModel, ids: Tensor, *, cache: Cache, chunk_size: int = CHUNK, progress: Progress = SILENT) -> Tensor:
    """Read `ids` [B, T] into `cache` and return the logits [B, V] that predict the next token."""
    for _, last in read(model, ids, cache=cache, chunk_size=chunk_size, progress=progress):
        return last[:, -1]
    raise ValueError("nothing to read: ids has no tokens")


def token_losses(model: PreTrainedModel, ids: Tensor, *, chunk_size: int, progress: Progress = SILENT) -> Tensor:
    """[B, T - 1] float64 on the CPU: -log p(ids[:, i + 1] | ids[:, : i + 1]) in nats. Only one chunk's logits exist at a time."""
    losses = torch.empty(ids.shape[0], ids.shape[1] - 1, dtype=torch.float64)
    for start, logits in read(model, ids, chunk_size=chunk_size, logits="all", progress=progress):
        targets = ids[:, start + 1 : start + 1 + logits.shape[1]]
        end = start + targets.shape[1]  # nothing follows the last token
        for row in range(len(ids)):
            losses[row, start:end] = next_token_losses(logits[row, : end - start], targets[row]).double().cpu()
    return losses


def next_token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """[N]: -log p(target) in nats under the logits [N, V], in float32 at least; 0 where the target is UNPREDICTED."""
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(exact, targets.to(logits.device), reduction="none", ignore_index=UNPREDICTED)
