"""The family of relative position biases whose series tell whether a model extrapolates: convergent ones do, and some that do not.

Paper: Exploring Transformer Extrapolation, 2023, arXiv:2307.10156
Cost: one number a pair, added to the logits; the model has to be trained with it.
Limits: the condition is sufficient only, and it is about the bias alone: content can outweigh it, and what it hides cannot be recalled.
Differs from the paper: all heads share one series; distances begin at 0, so that n of the paper is 1 + distance; a model's own positions
stay, where the paper's models have none.

With weights w(t) = exp(bias(t)) of the distance t, a model extrapolates if the series of w converges; its theoretical receptive field is
the least n for which the first n weights hold all but a share epsilon of the whole.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Biases
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least

Logarithm = Callable[[Tensor, float, float], Tensor]  # (distance float64, rate, exponent) -> log of the weight

_LARGEST = 2**1000  # near the end of float64

_LOGARITHMS: dict[str, Logarithm] = {
    "exponential": lambda t, rate, _: -rate * t,
    "kerple_power": lambda t, rate, exponent: -rate * t**exponent,
    "kerple_log": lambda t, rate, exponent: -exponent * torch.log1p(rate * t),
    "type1": lambda t, _rate, _exponent: -2 * torch.log1p(t),
    "type2": lambda t, _rate, _exponent: -(torch.log1p(t) ** 2),
    "harmonic": lambda t, _rate, _exponent: -torch.log1p(t),
    "bertrand": lambda t, _, exponent: -torch.log(t + 2) - exponent * torch.log(torch.log(t + 2)),
}
_TAKES: dict[str, tuple[str, ...]] = {  # the settings that a series has; the others would be without effect
    "exponential": ("rate",),
    "kerple_power": ("rate", "exponent"),
    "kerple_log": ("rate", "exponent"),
    "type1": (),
    "type2": (),
    "harmonic": (),
    "bertrand": ("exponent",),
}


@dataclass(frozen=True, kw_only=True)
class RpeFamily(Biases):
    """Args: series: the weight of the distance t:

    exponential: exp(-rate t), ALiBi's. kerple_power: exp(-rate t^exponent). kerple_log: (1 + rate t)^-exponent. type1: 1 / (1 + t)^2.
    type2: exp(-log(1 + t)^2). harmonic: 1 / (1 + t), which diverges. bertrand: 1 / ((t + 2) log(t + 2)^exponent).
    rate, exponent: of the series that have them (>= 0).
    """

    info: ClassVar = MethodInfo(
        title="Exploring Transformer Extrapolation",
        paper="arXiv:2307.10156",
        training_free=False,
        claims=(
            Claim(
                text="models trained with a bias whose series converges keep their perplexity beyond the training length",
                metric="scratch_rise_8x",
                condition="trained",
                at_most=0.02,
            ),
        ),
    )
    series: str
    rate: float | None = None
    exponent: float | None = None

    def __post_init__(self) -> None:
        if self.series not in _LOGARITHMS:
            raise SpecError(f"{self.name()}: series={self.series} is none of {', '.join(_LOGARITHMS)}")
        at_least(self, 0, "rate", "exponent")
        for setting in ("rate", "exponent"):
            given, taken = getattr(self, setting) is not None, setting in _TAKES[self.series]
            if given != taken:
                wrong = "is missing" if taken else "has no effect"
                raise SpecError(f"{self.name()}: {setting} {wrong} with series={self.series}")

    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor:
        """The logarithm of the weight, the same in every head: [H, *distance.shape] float32."""
        found = _LOGARITHMS[self.series](distance.double(), self.rate or 0.0, self.exponent or 0.0).float()
        return found.expand(layer.num_heads, *distance.shape)

    @property
    def converges(self) -> bool:
        """Whether the sum of all weights is finite, by analysis."""
        rate, exponent = self.rate or 0.0, self.exponent or 0.0
        return {
            "exponential": rate > 0,
            "kerple_power": rate > 0 and exponent > 0,
            "kerple_log": rate > 0 and exponent > 1,
            "type1": True,
            "type2": True,
            "harmonic": False,
            "bertrand": exponent > 1,
        }[self.series]

    def receptive_field(self, epsilon: float) -> float | None:
        """The theoretical receptive field in closed form (tokens; 0 < epsilon < 1): infinite where the series diverges, None where no
        closed form is known, or no float64 holds the number.

        Of the geometric series the share beyond n is exp(-rate n); of (1 + rate t)^-p it is a quotient of Hurwitz zeta functions.
        """
        if not self.converges:
            return math.inf
        if self.series == "exponential":
            assert self.rate is not None  # noqa: S101 - the series has one
            return max(1, math.ceil(-math.log(epsilon) / self.rate))
        if self.series == "type1":
            return _zeta_field(2.0, 1.0, epsilon)
        if self.series == "kerple_log":
            assert self.rate is not None and self.exponent is not None  # noqa: S101 - the series has both
            return _zeta_field(self.exponent, 1 / self.rate, epsilon)
        return None


def _zeta_field(exponent: float, offset: float, epsilon: float) -> int | None:
    """Least n with zeta(exponent, offset + n) <= epsilon zeta(exponent, offset)."""

    def beyond(n: int) -> float:
        return float(torch.special.zeta(torch.tensor(exponent, dtype=torch.float64), torch.tensor(offset + n, dtype=torch.float64)))

    low, high = 0, 1
    while beyond(high) > epsilon * beyond(0):
        low, high = high, 2 * high
        if high > _LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if beyond(middle) > epsilon * beyond(0) else (low, middle)
    return high


METHOD = RpeFamily
EXAMPLES = (
    RpeFamily(series="exponential", rate=0.5),
    RpeFamily(series="kerple_power", rate=0.25, exponent=2.0),
    RpeFamily(series="kerple_log", rate=1.0, exponent=1.5),
    RpeFamily(series="type1"),
    RpeFamily(series="type2"),
    RpeFamily(series="harmonic"),
    RpeFamily(series="bertrand", exponent=2.0),
)
NEUTRAL = (RpeFamily(series="exponential", rate=0.0), RpeFamily(series="kerple_log", rate=1.0, exponent=0.0))
BAD = (
    {"series": "linear"},
    {"series": "exponential", "rate": -1.0},
    {"series": "kerple_log", "rate": 1.0},
    {"series": "type1", "exponent": 3.0},
)
