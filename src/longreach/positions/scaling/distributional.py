"""Distributional: each dimension is interpolated or left alone, whichever changes the distribution of its rotary angles less.

Paper: Extending Context Window of Large Language Models from a Distributional Perspective, 2024, arXiv:2410.01490
Cost: none at run time; the angles of all positions are counted once.   Limits: a dimension is scaled by all of the factor or not at all.
Differs from the paper: dimensions whose two disturbances are equal (no angle leaves its interval) are interpolated, to stay in the range
that was trained. The paper leaves epsilon open. The official code takes the divergence the other way round; this is equation 8.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least, format_value
from longreach.positions.base import PositionsMethod, Rope

_EPSILON = 1e-8
_MOST = 1 << 24  # tokens whose angles are counted: beyond, memory and minutes


@dataclass(frozen=True, kw_only=True)
class Distributional(PositionsMethod):
    """Args: factor: target length over trained window (>= 1). intervals: bins of the circle (>= 1; paper: 360).

    threshold: nats by which interpolation has to disturb less (>= 0; the paper sets it so that half to 5/8 of the dimensions of Llama 2
    are interpolated).
    """

    info: ClassVar = MethodInfo(
        title="Extending Context Window of Large Language Models from a Distributional Perspective",
        paper="arXiv:2410.01490",
        exportable=True,
        claims=(
            Claim(
                text="up to 4.33 % better on LongBench-E than YaRN and PI, and unharmed on short tasks",
                metric="over_linear_and_yarn",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )
    factor: float
    intervals: int = 360
    threshold: float = 0.0

    def __post_init__(self) -> None:
        at_least(self, 1, "factor", "intervals")
        at_least(self, 0, "threshold")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Distributional", ...]:
        """The factor that the paper takes: target over window."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i / factor where extrapolation disturbs more by `threshold` at least, else theta_i."""
        plain = rope.inv_freq()
        extrapolated, interpolated = _disturbances(rope, self.factor, self.intervals)
        return torch.where(extrapolated >= interpolated + self.threshold, plain / self.factor, plain), rope.attention_factor


@cache
def _disturbances(rope: Rope, factor: float, intervals: int) -> tuple[Tensor, Tensor]:
    """KL divergence [dim / 2] of each dimension's angles at factor times the window from those inside it: extrapolated, interpolated."""
    plain, target = rope.inv_freq().double(), math.ceil(factor * rope.trained_window)
    if target > _MOST:
        raise SpecError(f"distributional: factor={format_value(factor)} is {target} tokens; it can count the angles of {_MOST} at most")
    trained = _distribution(plain, rope.trained_window, intervals)
    extrapolated, interpolated = _distribution(plain, target, intervals), _distribution(plain / factor, target, intervals)
    return _divergence(extrapolated, trained), _divergence(interpolated, trained)


def _distribution(frequencies: Tensor, length: int, intervals: int) -> Tensor:
    """[dim / 2, intervals] share of the positions below `length` whose angle lies in each interval of the circle."""
    positions = torch.arange(length, dtype=torch.float64)
    rows = []
    for frequency in frequencies:  # one by one: a million positions of all dimensions at once would not fit
        turns = positions * frequency / (2 * math.pi)
        rows.append(torch.bincount(((turns - turns.floor()) * intervals).long().clamp(max=intervals - 1), minlength=intervals) / length)
    return torch.stack(rows)


def _divergence(new: Tensor, old: Tensor) -> Tensor:
    return (new * ((new + _EPSILON) / (old + _EPSILON)).log()).sum(-1)


METHOD = Distributional
EXAMPLES = (Distributional(factor=4), Distributional(factor=8, intervals=90, threshold=0.1))
NEUTRAL = (Distributional(factor=1),)
BAD = ({"factor": 0.5}, {"factor": 4, "intervals": 0}, {"factor": 4, "threshold": -1})
