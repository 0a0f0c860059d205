"""YaRN: low frequencies interpolated, high ones kept, a ramp between, and sharper attention.

Paper: YaRN: Efficient Context Window Extension of Large Language Models, 2023, arXiv:2309.00071
Cost: none at run time.   Limits: untuned it holds to about 4 to 8 windows; short prompts lose a little.
Differs from the paper: nothing.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Yarn(PositionsMethod):
    """Args: factor: target length over trained window (>= 1).

    beta_fast, beta_slow: turns over the trained window above which a dimension is kept, below which it is fully interpolated
    (paper: 32 and 1). attention_factor: factor on cos and sin (paper: 0.1 ln(factor) + 1).
    """

    info: ClassVar = MethodInfo(
        title="YaRN: Efficient Context Window Extension of Large Language Models",
        paper="arXiv:2309.00071",
        exportable=True,
        claims=(
            Claim(
                text="state of the art after tuning on 0.1 % of the pretraining data; about 2 windows untuned", metric="rise", at_most=0.05
            ),
        ),
    )
    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")
        if not self.beta_fast > self.beta_slow > 0:
            raise SpecError(f"yarn: beta_fast={self.beta_fast:g} must be above beta_slow={self.beta_slow:g}, and both above 0")
        if self.attention_factor is not None and not self.attention_factor > 0:
            raise SpecError(f"yarn: attention_factor={self.attention_factor:g} must be above 0")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Yarn", ...]:
        """The paper's factor."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """Ramp over the dimensions: 1 keeps theta_i, 0 gives theta_i / factor."""
        low = max(math.floor(_dimension(rope, self.beta_fast)), 0)
        high = min(math.ceil(_dimension(rope, self.beta_slow)), rope.dim - 1)
        ramp = (torch.arange(rope.dim // 2, dtype=torch.float32) - low) / max(high - low, 0.001)
        keep = 1 - ramp.clamp(0, 1)
        if self.factor == 1:
            return rope.inv_freq(), self._attention_factor()
        # In the order in which transformers rounds, so that an export is the same to the last bit.
        return 1.0 / (self.factor * rope.powers()) * (1 - keep) + rope.inv_freq() * keep, self._attention_factor()

    def rope_parameters(self, rope: Rope) -> dict[str, Any]:
        """Transformers' own `yarn`, with values written out so that no reader has to guess one.

        The usual attention factor is left to the reader: GGUF converters take a stated one as coming on top of it.
        """
        stated = {} if self.attention_factor is None else {"attention_factor": self.attention_factor}
        return {
            "rope_type": "yarn",
            "rope_theta": rope.theta,
            "factor": self.factor,
            "original_max_position_embeddings": rope.trained_window,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            **stated,
        }

    def _attention_factor(self) -> float:
        return 0.1 * math.log(self.factor) + 1.0 if self.attention_factor is None else self.attention_factor


def _dimension(rope: Rope, turns: float) -> float:
    """The dimension pair (a fraction) that turns so often over the trained window."""
    return rope.dim * math.log(rope.trained_window / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


METHOD = Yarn
EXAMPLES = (Yarn(factor=4), Yarn(factor=8, beta_fast=16, attention_factor=1.0))
NEUTRAL = (Yarn(factor=1),)
BAD = ({"factor": 0.5}, {"factor": 4, "beta_fast": 1, "beta_slow": 2}, {"factor": 4, "attention_factor": 0})
