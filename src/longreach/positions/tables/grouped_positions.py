"""Grouped positions: several neighbouring tokens share each row of a table of learned positions.

Paper: LongEmbed: Extending Embedding Models for Long Context Retrieval, 2024, arXiv:2404.12096
Cost: none at run time.   Limits: the tokens of a group have no order among themselves but what causal attention gives.
Differs from the paper: the factor is fixed; the authors' code takes the least that fits each input.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import TableMethod


@dataclass(frozen=True, kw_only=True)
class GroupedPositions(TableMethod):
    """Args: factor: tokens that share a position (whole, >= 1)."""

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
    factor: int

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["GroupedPositions", ...]:
        """The smallest groups that reach the target."""
        return (cls(factor=-(-target // trained_window)),)

    def places(self, window: int) -> Tensor:
        """p // factor."""
        return torch.arange(window * self.factor, dtype=torch.float64) // self.factor


METHOD = GroupedPositions
EXAMPLES = (GroupedPositions(factor=4), GroupedPositions(factor=3))
NEUTRAL = (GroupedPositions(factor=1),)
BAD = ({"factor": 0},)
