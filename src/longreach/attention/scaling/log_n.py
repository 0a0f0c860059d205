"""Log-n scaling: logits grow with the logarithm of the position, so that attention stays as sharp over more keys.

Paper: Overcoming a Theoretical Limitation of Self-Attention, 2022, arXiv:2202.12172
Cost: one product a query.   Limits: sharpens only; it does not extend positions, so stack it on a method that does.
Differs from the paper: models not trained with it keep their logits inside the trained window: the factor is max(1, log n / log window).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.attention.base import Scales
from longreach.core.bands import LayerContext
from longreach.core.method import Claim, Method, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class LogN(Scales):
    """Args: window_size: tokens at which the factor is 1 (default: the trained window; >= 2)."""

    info: ClassVar = MethodInfo(
        title="Overcoming a Theoretical Limitation of Self-Attention",
        paper="arXiv:2202.12172",
        claims=(
            Claim(
                text="attention stays sharp at any length, which improves generalisation to longer inputs",
                metric="retrieval_gain",
                at_least=0.0,
            ),
        ),
    )
    window_size: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "window_size")

    @classmethod
    def suggest_on(cls, other: Method) -> tuple["LogN", ...]:
        """On what keeps the whole text in sight: elsewhere the number of keys does not grow."""
        return () if other.info.forgets else (cls(),)

    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor:
        """max(1, log(t + 1) / log(window))."""
        window = layer.trained_window if self.window_size is None else self.window_size
        return ((t.clamp(min=0) + 1).float().log() / math.log(window)).clamp(min=1)


METHOD = LogN
EXAMPLES = (LogN(), LogN(window_size=16))
NEUTRAL = (LogN(), LogN(window_size=64))
BAD = ({"window_size": 1},)
