"""Giraffe's truncated basis: frequencies that turned in training are kept, slower ones are one low constant, the slowest stand still.

Paper: Giraffe: Adventures in Expanding Context Lengths in LLMs, 2023, arXiv:2308.10882
Cost: none at run time.   Limits: made for tuning; the slow dimensions are no longer what the model was trained on, at any length.
Differs from the paper: nothing; the three thresholds are those of the official code, as fractions of the cutoff.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, PositionsWrapper, Rope

_LOW, _STILL = 16, 8  # the official code's: the constant is a 16th of the cutoff, and an 8th of it is where frequencies become 0


@dataclass(frozen=True, kw_only=True)
class GiraffeTruncated(PositionsWrapper):
    """Args: cutoff: longest wavelength that is kept (tokens, >= 1; default: the trained window: all that is kept has turned once)."""

    info: ClassVar = MethodInfo(
        title="Giraffe: Adventures in Expanding Context Lengths in LLMs",
        paper="arXiv:2308.10882",
        exportable=True,
        claims=(Claim(text="promising extrapolation: low perplexity beyond the window", metric="rise", condition="tuned", at_most=0.05),),
    )
    cutoff: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "cutoff")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["GiraffeTruncated", ...]:
        """The paper's setting; it knows no target, so it is right up to 16 windows, where the constant has turned once."""
        return (cls(),) if target <= _LOW * trained_window else ()

    def wrap(self, inner: PositionsMethod, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i where at least b = 2 pi / cutoff; b / 16 down to b / 8; 0 below."""
        scaled, attention_factor = inner.inv_freq(rope, seq_len)
        kept = 2 * math.pi / (rope.trained_window if self.cutoff is None else self.cutoff)
        low = torch.where(scaled < kept / _STILL, 0.0, kept / _LOW)
        return torch.where(scaled < kept, low, scaled), attention_factor


METHOD = GiraffeTruncated
EXAMPLES = (GiraffeTruncated(), GiraffeTruncated(cutoff=16))
NEUTRAL = (GiraffeTruncated(cutoff=100_000_000),)
BAD = ({"cutoff": 0},)
