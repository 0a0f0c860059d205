"""What holds for attention policies and positions where the positions of the tokens skip, as in training on sampled positions."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from longreach.attention.base import AttentionPolicy, goes_by_text
from longreach.core.errors import LongreachError
from longreach.core.method import Method
from longreach.engine.apply import apply
from longreach.positions.base import PositionsMethod
from longreach.testing.conformance.base import LENGTH, WINDOW, Check, close, first, model_for, require
from longreach.testing.models import random_ids
from longreach.testing.naive import naive_logits

# Three chunks: the second skips less than a window, the third several.
INDICES = torch.cat([torch.arange(14), torch.arange(14, 30) + 9, torch.arange(30, LENGTH) + 3 * WINDOW])


def check_skipping_positions(method: Method) -> int:
    """Tokens at skipping positions see each other as the same tokens of a whole text would: values of the definition in float64."""
    ids = random_ids(2, LENGTH)
    compared = 0
    for family in ("llama", "gemma2", "qwen2_mixed") if first(method) else ("llama",):
        model = model_for(method, family)
        with torch.no_grad():
            wanted = naive_logits(model, (method,), ids, indices=INDICES)
        with apply(model, method):
            compared += close(_logits(model, ids), wanted, family)
    return compared


def check_skipping_is_refused(method: Method) -> int:
    """A method that goes by the text itself cannot tell what was left out, and says so."""
    model = model_for(method)
    with apply(model, method):
        try:
            _logits(model, random_ids(1, LENGTH))
        except LongreachError as error:
            return require("positions that skip" in str(error), f"unclear: {error}")
    return require(False, "positions that skip were taken")


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(ids, position_ids=INDICES[None], attention_mask=torch.ones_like(ids), use_cache=False).logits
    return found


def _placed(method: Method) -> bool:
    return isinstance(method, AttentionPolicy) or (isinstance(method, PositionsMethod) and method.needs_engine)


def _by_text(method: Method) -> bool:
    return isinstance(method, AttentionPolicy) and goes_by_text(method)


CHECKS = (
    Check(run=check_skipping_positions, applies=lambda method: _placed(method) and not _by_text(method)),
    Check(run=check_skipping_is_refused, applies=_by_text),
)
