"""Knowledge-preserving stretching: a table of learned positions keeps its well-trained first rows and is interpolated after them.

Paper: Long-CLIP: Unlocking the Long-Text Capability of CLIP, 2024, arXiv:2403.15378
Cost: none at run time.   Limits: untuned, local order blurs beyond the kept positions; meant to be followed by tuning.
Differs from the paper: only the stretching, not the fine-tuning on long captions with matched principal components.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import TableMethod


@dataclass(frozen=True, kw_only=True)
class StretchPositions(TableMethod):
    """Args: factor: by which the positions after the kept ones are stretched (>= 1). keep: first positions left as they are (>= 1).

    The paper keeps 20 of CLIP's 77 positions and stretches the others by 4, to 248. `interpolated_positions` keeps none.
    """

    info: ClassVar = MethodInfo(
        title="Long-CLIP: Unlocking the Long-Text Capability of CLIP",
        paper="arXiv:2403.15378",
        exportable=True,
        claims=(
            Claim(
                text="keeping the well-trained first positions costs short texts less than interpolating all of them",
                metric="inside_against_interpolated",
                at_most=0.0,
            ),
        ),
    )
    factor: float
    keep: int = 20

    def __post_init__(self) -> None:
        at_least(self, 1, "factor", "keep")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["StretchPositions", ...]:
        """The paper's 20 kept positions, and the factor that brings the last of the others to the target."""
        if trained_window < 2 * cls.keep:
            return ()
        return (cls(factor=factor_to(target - cls.keep, trained_window - cls.keep)),)

    def places(self, window: int) -> Tensor:
        """p for p < keep, then keep + (p - keep) / factor."""
        if self.keep >= window:
            raise SpecError(f"{self.name()}: keep={self.keep} must be below the {window} positions of the model")
        steps = torch.arange(round((window - self.keep) * self.factor), dtype=torch.float64)
        return torch.cat([torch.arange(self.keep, dtype=torch.float64), self.keep + steps / self.factor])


METHOD = StretchPositions
EXAMPLES = (StretchPositions(factor=4, keep=8), StretchPositions(factor=2.5))
NEUTRAL = (StretchPositions(factor=1, keep=8),)
BAD = ({"factor": 0.5}, {"factor": float("nan")}, {"factor": 4, "keep": 0})
