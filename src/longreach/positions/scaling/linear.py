"""Position Interpolation: all positions divided by the factor, so that no distance exceeds the trained window.

Paper: Extending Context Window of Large Language Models via Positional Interpolation, 2023, arXiv:2306.15595
Cost: none at run time.   Limits: untuned, fine local order blurs as the factor grows; meant to be followed by tuning.
Differs from the paper: nothing. On a checkpoint that is scaled so already, both are one scaling by the product of their factors.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Linear(PositionsMethod):
    """Args: factor: target length over trained window (>= 1)."""

    info: ClassVar = MethodInfo(
        title="Extending Context Window of Large Language Models via Positional Interpolation",
        paper="arXiv:2306.15595",
        exportable=True,
        claims=(
            Claim(
                text="LLaMA to 32k tokens after at most 1000 steps of tuning: perplexity at 8 windows is not above that at one",
                metric="rise",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )
    factor: float

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Linear", ...]:
        """The factor that puts the target where the window ended."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i / factor."""
        before, factor = rope.merged("linear", self.factor)
        return before.inv_freq() / factor, rope.attention_factor

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' own `linear`, where the checkpoint was not scaled otherwise."""
        before, factor = rope.merged("linear", self.factor)
        if before.scaling is not None:
            return super().rope_parameters(rope)
        return {"rope_type": "linear", "factor": factor, "rope_theta": rope.theta}


METHOD = Linear
EXAMPLES = (Linear(factor=4), Linear(factor=1.5))
NEUTRAL = (Linear(factor=1),)
BAD = ({"factor": 0.5}, {"factor": float("nan")})
