"""Llama 3.1's scaling: frequencies that turn less than once in the window divided by the factor, fast ones kept, a ramp between.

Paper: The Llama 3 Herd of Models, 2024, arXiv:2407.21783
Cost: none at run time.   Limits: Llama 3.1 was trained on long texts under it; untuned it holds to a few windows.
Differs from the paper: the paper names only the larger base and the stages of training; the formula is that of the released checkpoints.
On a checkpoint that has this ramp already, as Llama 3 itself, both are one scaling by the product of their factors.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope
from longreach.positions.scaling._parts import as_llama3, by_parts, check_ramp


@dataclass(frozen=True, kw_only=True)
class Llama3(PositionsMethod):
    """Args: factor: by which slow frequencies are divided (>= 1; Llama 3.1: 8, of a window of 8192).

    low_freq_factor, high_freq_factor: turns over the trained window below which a dimension is divided by the whole factor, above which it
    is kept (Llama 3.1: 1 and 4).
    """

    info: ClassVar = MethodInfo(
        title="The Llama 3 Herd of Models",
        paper="arXiv:2407.21783",
        exportable=True,
        claims=(
            Claim(
                text="128k tokens from 8k after training in six stages; needles found at every depth",
                metric="retrieval",
                condition="tuned",
                at_least=0.85,
            ),
        ),
    )
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")
        check_ramp(self, "low_freq_factor", "high_freq_factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Llama3", ...]:
        """The factor that puts the target where the window ended."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """A mixture of theta_i and theta_i / factor, linear in the turns from low_freq_factor to high_freq_factor."""
        return by_parts(rope, self.factor, self.low_freq_factor, self.high_freq_factor), rope.attention_factor

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' own `llama3`, where the checkpoint was not scaled otherwise."""
        return as_llama3(rope, self.factor, self.low_freq_factor, self.high_freq_factor) or super().rope_parameters(rope)


METHOD = Llama3
EXAMPLES = (Llama3(factor=8), Llama3(factor=4, low_freq_factor=2, high_freq_factor=16))
NEUTRAL = (Llama3(factor=1),)
BAD = ({"factor": 0.5}, {"factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}, {"factor": 8, "low_freq_factor": 0})
