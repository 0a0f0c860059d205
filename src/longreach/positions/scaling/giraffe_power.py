"""Giraffe's power basis: every frequency times a power of its place among the dimensions, so that slow ones are stretched most.

Paper: Giraffe: Adventures in Expanding Context Lengths in LLMs, 2023, arXiv:2308.10882
Cost: none at run time.   Limits: made for tuning; untuned, dimensions in the middle are neither kept nor stretched enough.
Differs from the paper: also takes a factor, which chooses the power by what it does to the slowest dimension.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least, format_value
from longreach.positions.base import PositionsMethod, PositionsWrapper, Rope


@dataclass(frozen=True, kw_only=True)
class GiraffePower(PositionsWrapper):
    """Args: power: exponent (>= 0; the paper's code was run with 0.5). factor: instead of it, stretch of the slowest dimension (>= 1)."""

    info: ClassVar = MethodInfo(
        title="Giraffe: Adventures in Expanding Context Lengths in LLMs",
        paper="arXiv:2308.10882",
        exportable=True,
        claims=(
            Claim(
                text="good retrieval up to about 4 windows and the sharpest fall beyond",
                metric="retrieval",
                condition="tuned",
                times=4,
                at_least=0.85,
            ),
        ),
    )
    power: float | None = None
    factor: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 0, "power")
        at_least(self, 1, "factor")
        if (self.power is None) == (self.factor is None):
            given = f"power={format_value(self.power)} and factor={format_value(self.factor)}"
            raise SpecError(f"giraffe_power: give either power or factor, not {given}")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["GiraffePower", ...]:
        """The power that puts the slowest dimension's target where its window ended."""
        return (cls(factor=factor_to(target, trained_window)),)

    def wrap(self, inner: PositionsMethod, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i * (1 - 2i / d) ** power."""
        scaled, attention_factor = inner.inv_freq(rope, seq_len)
        pairs = rope.dim // 2
        # The slowest dimension has (1 / pairs) ** power.
        power = math.log(self.factor) / math.log(max(pairs, 2)) if self.factor is not None else self.power or 0.0
        return scaled * (torch.arange(pairs, 0, -1) / pairs) ** power, attention_factor


METHOD = GiraffePower
EXAMPLES = (GiraffePower(power=0.5), GiraffePower(factor=8))
NEUTRAL = (GiraffePower(power=0), GiraffePower(factor=1))
BAD = ({"power": -1}, {"factor": 0.5}, {"power": 0.5, "factor": 8}, {"power": None})
