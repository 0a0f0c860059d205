"""ReRoPE: distances are true up to a window and stand still beyond it (leaky: go on slowly).

Paper: Rectified Rotary Position Embeddings, 2023, Jianlin Su (published online: kexue.fm/archives/9708)
Cost: two attention bands a layer; no training.   Limits: beyond the window keys have no order (leaky: a blurred one).
Differs from the paper: the author's code also multiplies logits by log n; stack log_n on it for that.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places
from longreach.core.bands import Band, Constant, LayerContext, Scaled
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class ReRoPE(Places):
    """Args: window_size: distances below it are true (tokens, >= 1).

    leak: beyond the window the distance grows by 1 / leak a token (none: not at all).
    """

    info: ClassVar = MethodInfo(
        title="Rectified Rotary Position Embeddings",
        paper="Jianlin Su, 2023 (kexue.fm/archives/9708)",
        changes_positions=True,
        claims=(Claim(text="trained at 512 tokens, predicts at 4096 about as well as at 512", metric="rise", at_most=0.05),),
    )
    window_size: int
    leak: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "window_size", "leak")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["ReRoPE", ...]:
        """Half of the window, standing still beyond it; and with the smallest leak that ends inside the window."""
        half = max(1, trained_window // 2)
        return (cls(window_size=half), cls(window_size=half, leak=float(math.ceil(target / max(1, trained_window - 1 - half)))))

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Near: i - j. Far: window_size, or window_size + (i - j - window_size) / leak."""
        near = Band(hi=self.window_size - 1)
        if self.leak is None:
            return (near, Band(queries=Constant(self.window_size), keys=Constant(0), lo=self.window_size))
        shift = self.window_size - self.window_size / self.leak
        return (near, Band(queries=Scaled(self.leak, shift), keys=Scaled(self.leak), lo=self.window_size))

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """min(i - j, w), or w + (i - j - w) / k beyond w."""
        beyond = (i - j - self.window_size).clamp(min=0).double()
        leaked = beyond / self.leak if self.leak is not None else beyond * 0
        return torch.where(i - j < self.window_size, i - j, self.window_size + leaked), j <= i


METHOD = ReRoPE
EXAMPLES = (ReRoPE(window_size=16), ReRoPE(window_size=16, leak=8), ReRoPE(window_size=1))
NEUTRAL = (ReRoPE(window_size=64), ReRoPE(window_size=16, leak=1))
BAD = ({"window_size": 0}, {"window_size": 16, "leak": 0.5})
