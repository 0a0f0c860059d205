"""Self-Extend: true positions for near keys, grouped ones for far keys, so that no distance exceeds the trained window.

Paper: LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning, 2024, arXiv:2401.01325
Cost: two attention bands a layer and a second rotated copy of the keys; no training.
Limits: reaches (trained - neighbours) * group + neighbours tokens; far keys are only ordered by group.
Differs from the paper: nothing. Where group does not divide neighbours, some paths of the authors' code leave neighbours / group
unrounded, so that far keys lie less than a position nearer; others round down, as here.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Places
from longreach.core.bands import Band, Grouped, LayerContext
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class SelfExtend(Places):
    """Args: neighbours: nearest keys with true positions, the query's own included (tokens, >= 1). group: far positions a step (>= 1)."""

    info: ClassVar = MethodInfo(
        title="LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning",
        paper="arXiv:2401.01325",
        changes_positions=True,
        claims=(
            Claim(text="perplexity stays low beyond the window (Llama-2, Mistral, SOLAR)", metric="rise", at_most=0.05),
            Claim(text="passkeys are found at all depths well beyond the window", metric="retrieval", at_least=0.85),
        ),
    )
    neighbours: int
    group: int

    def __post_init__(self) -> None:
        at_least(self, 1, "neighbours", "group")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["SelfExtend", ...]:
        """A quarter of the window for neighbours with the smallest group that reaches; half of it with a group half as large again.

        The slack keeps far keys off the largest trained distances, which training shows a model least often.
        """
        few, many = max(1, trained_window // 4), max(1, trained_window // 2)
        least = target / max(1, trained_window - few), target / max(1, trained_window - many)
        return (cls(neighbours=few, group=math.ceil(least[0])), cls(neighbours=many, group=math.ceil(1.5 * least[1])))

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Near: i - j. Far: (i // group + neighbours - neighbours // group) - j // group."""
        if self.group == 1:
            return (Band(),)
        shift = self.neighbours - self.neighbours // self.group
        return (
            Band(hi=self.neighbours - 1),
            Band(queries=Grouped(self.group, shift), keys=Grouped(self.group), lo=self.neighbours),
        )

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Equations 3 and 4 of the paper."""
        far = i // self.group - j // self.group + self.neighbours - self.neighbours // self.group
        return torch.where(i - j < self.neighbours, i - j, far), j <= i


METHOD = SelfExtend
EXAMPLES = (SelfExtend(neighbours=16, group=4), SelfExtend(neighbours=1, group=3), SelfExtend(neighbours=10, group=7))
NEUTRAL = (SelfExtend(neighbours=64, group=4), SelfExtend(neighbours=16, group=1))
BAD = ({"neighbours": 0, "group": 4}, {"neighbours": 16, "group": 0})
