"""Recurrent positions: a table of learned positions begins anew wherever it ends.

Paper: LongEmbed: Extending Embedding Models for Long Context Retrieval, 2024, arXiv:2404.12096
Cost: none at run time.   Limits: tokens a whole number of tables apart cannot be told by position; the order of tables is lost.
Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import TableMethod


@dataclass(frozen=True, kw_only=True)
class RecurrentPositions(TableMethod):
    """Args: factor: positions of the longer table over those of the trained one (>= 1)."""

    info: ClassVar = MethodInfo(
        title="LongEmbed: Extending Embedding Models for Long Context Retrieval",
        paper="arXiv:2404.12096",
        exportable=True,
        claims=(
            Claim(
                text="embedding models of 512 tokens retrieve better from 4k tokens than from the first 512",
                metric="rise",
                at_most=0.0,
            ),
            Claim(
                text="embedding models of 512 tokens retrieve better from 4k tokens than from the first 512",
                metric="found_gain",
                at_least=0.0,
            ),
        ),
    )
    factor: float

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["RecurrentPositions", ...]:
        """As many tables as reach the target."""
        return (cls(factor=factor_to(target, trained_window)),)

    def places(self, window: int) -> Tensor:
        """p mod window."""
        return torch.arange(round(window * self.factor), dtype=torch.float64) % window


METHOD = RecurrentPositions
EXAMPLES = (RecurrentPositions(factor=4), RecurrentPositions(factor=1.5))
NEUTRAL = (RecurrentPositions(factor=1),)
BAD = ({"factor": 0.5},)
