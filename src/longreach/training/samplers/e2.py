"""E2-LLM: each sequence is trained at a random interpolation and offset, so that one training serves every window up to the target.

Paper: E^2-LLM: Efficient and Extreme Length Extension of Large Language Models, 2024, arXiv:2401.06951
Cost: that of training at the sequence length, whatever the target.
Limits: needs a method that divides all positions alike (linear); a sequence shows short distances only, at every interpolation.
Differs from the paper: sequences are no longer than the trained window (the paper also has twice it), where scale 1 has no offsets.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class E2(PositionSampler):
    """Args: sinks: first tokens that the offset does not move (paper: 4, equation 7; at least 0)."""

    info: ClassVar = MethodInfo(
        title="E^2-LLM: Efficient and Extreme Length Extension of Large Language Models",
        paper="arXiv:2401.06951",
        training_free=False,
        claims=(
            Claim(
                text="one training on short sequences serves all lengths, close to training at each",
                metric="sampler_above_full",
                condition="tuned",
                at_most=0.05,
            ),
        ),
    )
    uniform_scaling: ClassVar = True
    sinks: int = 4

    def __post_init__(self) -> None:
        at_least(self, 0, "sinks")

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """At most the trained window: scale 1 has no room for more."""
        length = super().seq_len(wanted, trained_window, target)
        if length > trained_window:
            raise InputError(f"{self}: sequences of {length} tokens; give at most the trained window of {trained_window}")
        return length

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Scale g is uniform from 1 to target / window, the offset from 0 to g windows less the sequence.

        The positions method divides by target / window; these positions undo that and divide by g instead.
        """
        most = geometry.target / geometry.trained_window
        scale = int(rng.integers(1, max(1, int(most)) + 1))
        offset = int(rng.integers(0, scale * geometry.trained_window - geometry.seq_len + 1))
        place = np.arange(geometry.seq_len)
        return place, np.where(place < self.sinks, place, place + offset) * (most / scale)


METHOD = E2
EXAMPLES = (E2(), E2(sinks=0))
BAD = ({"sinks": -1},)
