"""Full length: sequences are as long as the target, at their true positions.

Paper: Extending Context Window of Large Language Models via Positional Interpolation, 2023, arXiv:2306.15595
Cost: attention and memory grow with the target: the dearest way to train, and what the others are compared with.
Limits: needs the memory for one whole sequence.
Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import Claim, MethodInfo
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class FullLength(PositionSampler):
    """Has no settings."""

    skips: ClassVar = False
    info: ClassVar = MethodInfo(
        title="Extending Context Window of Large Language Models via Positional Interpolation",
        paper="arXiv:2306.15595",
        training_free=False,
        claims=(
            Claim(
                text="within 1,000 steps of training, perplexity falls with the context to the new length",
                metric="sampler_rise",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """The target."""
        if wanted not in (None, target):
            raise InputError(f"{self}: sequences have the target's {target} tokens, not {wanted}; leave the length out, or choose pose")
        return target

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Everything where it is."""
        return np.arange(geometry.seq_len), np.arange(geometry.seq_len)


METHOD = FullLength
EXAMPLES = (FullLength(),)
BAD = ()
