"""Randomized positions: running text at positions drawn from the whole target and sorted.

Paper: Randomized Positional Encodings Boost Length Generalization of Transformers, 2023, arXiv:2305.16843
Cost: that of training at the sequence length, whatever the target.
Limits: neighbours are no longer one position apart, which costs a language model its sense of the nearest tokens.
Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.method import Claim, MethodInfo
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class Randomized(PositionSampler):
    """Has no settings."""

    info: ClassVar = MethodInfo(
        title="Randomized Positional Encodings Boost Length Generalization of Transformers",
        paper="arXiv:2305.16843",
        training_free=False,
        claims=(
            Claim(
                text="positions drawn from a longer range generalize to its length",
                metric="sampler_below_untuned",
                condition="tuned",
                at_least=0.0,
            ),
        ),
    )

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Positions without repetition, every set as likely."""
        positions = np.sort(rng.choice(geometry.target, size=geometry.seq_len, replace=False))
        return np.arange(geometry.seq_len), positions


METHOD = Randomized
EXAMPLES = (Randomized(),)
BAD = ()
