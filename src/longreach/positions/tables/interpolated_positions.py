"""Interpolated positions: new rows between the trained ones lengthen a table of learned positions.

Paper: Extending Input Contexts of Language Models through Training on Segmented Sequences, 2023, arXiv:2310.14633
Cost: none at run time.   Limits: untuned, neighbours stand closer than in training; meant to be followed by tuning.
Differs from the paper: only the interpolation of absolute embeddings, not the training on segments. Positions after the last trained row
continue the line of the last two.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import TableMethod


@dataclass(frozen=True, kw_only=True)
class InterpolatedPositions(TableMethod):
    """Args: factor: positions of the longer table over those of the trained one (>= 1)."""

    info: ClassVar = MethodInfo(
        title="Extending Input Contexts of Language Models through Training on Segmented Sequences",
        paper="arXiv:2310.14633",
        exportable=True,
        claims=(
            Claim(
                text="after continued training on segments, 4 times the input context with a lower perplexity",
                metric="tuned_rise",
                condition="tuned",
                at_most=0.0,
            ),
            Claim(
                text="arXiv:2404.12096: embedding models of 512 tokens retrieve better from 4k tokens than from the first 512",
                metric="found_gain",
                at_least=0.0,
            ),
        ),
    )
    factor: float

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["InterpolatedPositions", ...]:
        """The factor that puts the target where the table ended."""
        return (cls(factor=factor_to(target, trained_window)),)

    def places(self, window: int) -> Tensor:
        """p / factor."""
        return torch.arange(round(window * self.factor), dtype=torch.float64) / self.factor


METHOD = InterpolatedPositions
EXAMPLES = (InterpolatedPositions(factor=4), InterpolatedPositions(factor=1.5))
NEUTRAL = (InterpolatedPositions(factor=1),)
BAD = ({"factor": 0.5}, {"factor": float("inf")})
