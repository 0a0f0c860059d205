"""The model's own attention function, for rows that have to come out bit for bit as without longreach."""

import sys
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from longreach.engine._store import BandLayer
from longreach.engine._stream import MaskSpec, Step

OwnAttention = Callable[[Tensor, Tensor, Tensor, Any], Tensor]


def own_attention(module: nn.Module, implementation: str, options: dict[str, Any]) -> OwnAttention:
    """(q [B, H, T, D], k and v [B, K, S, D], rotated, and the model's own mask) -> [B, T, H, D], by transformers' `implementation`."""

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Any) -> Tensor:
        eager: Any = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        function = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager)
        out: Tensor = function(module, q, k, v, mask, **options)[0]
        return out

    return attend


def own_mask(spec: MaskSpec, implementation: str, layer: BandLayer) -> Any:
    """The mask that goes with it, for the keys that `layer` keeps."""
    mask = spec.own_mask(implementation)
    return mask[..., layer.oldest :] if isinstance(mask, Tensor) and mask.ndim == 4 else mask


def rows_inside(step: Step, spec: Any, window: int | None) -> Tensor | bool:
    """Which rows have all their new tokens inside the window: all, none, or [B] True for those; none where no window is given."""
    if window is None or not isinstance(spec, MaskSpec):
        return False
    if "inside" not in step.memo:
        rows = (step.t < window).all(1)
        step.memo["inside"] = bool(rows.any()) if len(rows.unique()) == 1 else rows
    found: Tensor | bool = step.memo["inside"]
    return found
