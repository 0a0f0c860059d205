"""HARPE: a rotary base for each head, from short-sighted to far-sighted, so that one training at the target length does for several.

Paper: Breaking the Stage Barrier: A Novel Single-Stage Approach to Long Context Extension for Large Language Models, 2024,
arXiv:2412.07171
Cost: rotation by the engine instead of the model; the model has to be trained under it.   Limits: untuned, heads whose base is far from
the one they were trained with no longer know where they look.
Differs from the paper: heads that share keys (grouped queries) share a base. Of its two ways to choose the bases, this is the uniform one;
the search for bases whose peaks lie in the valleys of others, 1.5 % better there, is not here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, format_value
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Harpe(PositionsMethod):
    """Args: base_min, base_max: of the heads (> 1; the paper: 1e6 and 5e6, for 128k tokens after 4k). descending: the largest first."""

    info: ClassVar = MethodInfo(
        title="Breaking the Stage Barrier: A Novel Single-Stage Approach to Long Context Extension for Large Language Models",
        paper="arXiv:2412.07171",
        training_free=False,
        changes_positions=True,
        per_head=True,
        claims=(
            Claim(
                text="one training at the target length does as well as training in stages under a base that grows",
                metric="sampler_above_full",
                condition="tuned",
                at_most=0.05,
            ),
        ),
    )
    base_min: float
    base_max: float
    descending: bool = False

    def __post_init__(self) -> None:
        if not 1 < self.base_min <= self.base_max < float("inf"):
            low, high = format_value(self.base_min), format_value(self.base_max)
            raise SpecError(f"harpe: base_min={low} must be above 1 and at most base_max={high}")

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """[num_heads, dim / 2]: the bases of the heads lie evenly between the two, ends included."""
        bases = torch.linspace(self.base_min, self.base_max, rope.num_heads, dtype=torch.float64).tolist()
        return torch.stack([rope.inv_freq(base) for base in (reversed(bases) if self.descending else bases)]), rope.attention_factor


METHOD = Harpe
EXAMPLES = (Harpe(base_min=2e4, base_max=4e5), Harpe(base_min=1e6, base_max=5e6, descending=True))
NEUTRAL = ()
BAD = ({"base_min": 1, "base_max": 5}, {"base_min": 5e6, "base_max": 1e6})
