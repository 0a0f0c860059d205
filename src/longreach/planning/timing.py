"""Times a short run of the model itself under each method."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from longreach.decoding.reading import new_cache, prefill
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument

if TYPE_CHECKING:
    from longreach.planning.plan import PlannedMethod

TIMED = 1024  # tokens that are read, at most
_WRITTEN = 16


def timed(model: PreTrainedModel, rows: "Sequence[PlannedMethod]", tokens: int, batch: int) -> "list[PlannedMethod]":
    """The rows with what reading `tokens` in each of `batch` texts took, and with the speed of writing behind them."""
    _seconds(model, min(tokens, 32), 1)  # the first forward of a process is slow
    found = []
    for row in rows:
        with apply(model, row.spec, warn=False):
            reading, writing = _seconds(model, tokens, batch)
        found.append(replace(row, prefill_seconds=reading, tokens_per_second=batch * _WRITTEN / writing))
    return found


@torch.no_grad()
def _seconds(model: PreTrainedModel, tokens: int, batch: int) -> tuple[float, float]:
    """Of reading a prompt, and of the tokens after it but for the first, at which some caches are cut."""
    cache, vocabulary = new_cache(model), model.config.get_text_config().vocab_size
    ids = (torch.arange(tokens, device=model.device) % vocabulary).expand(batch, -1)
    begun = time.perf_counter()
    last = prefill(model, ids, cache=cache).argmax(-1)
    last.tolist()  # a device may still be at work
    read = time.perf_counter() - begun
    for number in range(_WRITTEN + 1):
        begun = time.perf_counter() if number == 1 else begun
        last = model(last[:, None], **cache_argument(model, cache), use_cache=True).logits[:, -1].argmax(-1)
        last.tolist()
    return read, time.perf_counter() - begun
