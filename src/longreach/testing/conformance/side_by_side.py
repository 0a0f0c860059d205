"""What holds for texts that are read alone and go on side by side, as a server has it (engine/rows.py)."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.engine.cache_argument import cache_argument
from longreach.engine.rows import stack_rows, stackable, take_row
from longreach.engine.watch import watch_on
from longreach.testing.conformance.base import LENGTH, Check, cached_logits, close, left_padding, model_for, require, shapes
from longreach.testing.conformance.engine import runs
from longreach.testing.models import random_ids

_LENGTHS = (LENGTH, 33, 1)  # also fewer tokens than a method keeps of the beginning
_STEPS = 3


def check_side_by_side(method: Method) -> int:
    """Texts that were read alone go on as rows of one cache, and then alone again, as if each had been alone all the time.

    A cache for which that is not so says that it cannot.
    """
    return sum(_compared(method, family) for family in shapes(method, "llama", "gemma2"))


def _compared(method: Method, family: str) -> int:
    model, ids, compared = model_for(method, family), random_ids(len(_LENGTHS), LENGTH + 2 * _STEPS), 0
    with apply(model, method), torch.no_grad():
        alone = [_cache(model) for _ in _LENGTHS]
        found = [[_go_on(model, ids[row : row + 1, :length], alone[row])] for row, length in enumerate(_LENGTHS)]
        together = _cache(model)
        if not stackable(alone[0]):
            try:
                stack_rows(together, alone)
            except LongreachError as error:
                return require("one text at a time" in str(error), f"unclear: {error}")
            return require(False, "a cache that cannot be a row became one")
        padding, mask = stack_rows(together, alone), left_padding(_LENGTHS)
        for step in range(_STEPS):
            places = torch.tensor(_LENGTHS)[:, None] + step
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            of_all = _go_on(model, ids.gather(1, places), together, attention_mask=mask, position_ids=places)
            for row, parts in enumerate(found):
                parts.append(of_all[row : row + 1])
        for row, length in enumerate(_LENGTHS):
            again, end = _cache(model), length + _STEPS
            take_row(again, together, row, padding[row])
            found[row] += [_go_on(model, ids[row : row + 1, at, None], again) for at in range(end, end + _STEPS)]
            wanted = cached_logits(model, ids[row : row + 1, : end + _STEPS], (length, *[1] * (2 * _STEPS)))
            compared += close(torch.cat(found[row], 1), wanted, f"{family}, the row of {length} tokens")
    return compared


def _cache(model: PreTrainedModel) -> DynamicCache:
    """An empty one that the model takes for its own."""
    cache = DynamicCache(config=model.config.get_text_config())
    watch = watch_on(model)
    assert watch is not None  # noqa: S101 - a method is applied
    watch.claim(cache)
    return cache


def _go_on(model: PreTrainedModel, ids: Tensor, past: DynamicCache, **given: Tensor) -> Tensor:
    found: Tensor = model(ids, **cache_argument(model, past), use_cache=True, **given).logits
    return found


CHECKS = (Check(run=check_side_by_side, applies=runs, tier="method"),)
