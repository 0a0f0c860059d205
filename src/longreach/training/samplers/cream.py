"""CREAM: a sequence is a head, a middle and a tail; the middle's place is drawn so that the midst of the context is seen most.

Paper: Never Miss A Beat: An Efficient Recipe for Context Window Extension of Large Language Models with Consistent "Middle" Enhancement,
2024, arXiv:2406.07138
Cost: that of training at the sequence length, whatever the target.
Limits: a sequence never shows more keys than its length; made for targets of at least two sequences.
Differs from the paper: nothing; as in its code, the Gaussian is cut off by moving what lies outside the bounds to the bounds. Its mean is
the factor + 1; the code has 9, which is that of its factor of 8, for every factor. Whether ends are long or short is drawn for each
sequence, in the code for each batch of texts.
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError, SpecError
from longreach.core.method import Claim, MethodInfo
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class Cream(PositionSampler):
    """Args: sigma: spread of the Gaussian in half sequences (paper: 3; above 0)."""

    info: ClassVar = MethodInfo(
        title="Never Miss A Beat: An Efficient Recipe for Context Window Extension of Large Language Models with Consistent "
        '"Middle" Enhancement',
        paper="arXiv:2406.07138",
        training_free=False,
        claims=(
            Claim(
                text="extends to 256k on 4k sequences, better than PoSE",
                metric="sampler_above_pose",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )
    sigma: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise SpecError(f"cream: sigma={self.sigma:g} must be above 0 and finite")

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """A head, a middle and a tail need 3 tokens; below two sequences the middle has nowhere to go."""
        length = super().seq_len(wanted, trained_window, target)
        if length < 3 or target < 2 * length:
            raise InputError(
                f"{self}: a target of {target} tokens; it needs at least two sequences, of at least 3 tokens, and has {length}"
            )
        return length

    def span(self, geometry: Geometry) -> int:
        """The target: the text stands at its true positions."""
        return geometry.target

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Head and tail stand at the ends of the target: a third of the sequence each (relativity), or 4 tokens for each time that
        the target is longer (continuity), at even chances. The middle ends between alpha / 2 of its first and of its last place.
        """
        factor = geometry.target / geometry.seq_len
        third = geometry.seq_len // 3
        ends = third if rng.random() < 0.5 else min(int(4 * factor), third)
        middle = geometry.seq_len - 2 * ends
        alpha = self._alpha(rng.random(), factor)
        first = int(ends + (middle - 1) * alpha / 2)
        last = max(first, int(alpha / 2 * geometry.seq_len) - ends - 1)
        end = int(rng.integers(first, last + 1))
        positions = np.concatenate(
            [np.arange(ends), np.arange(end - middle + 1, end + 1), np.arange(geometry.target - ends, geometry.target)]
        )
        return positions, positions

    def _alpha(self, uniform: float, factor: float) -> int:
        """From 2 to twice the factor: the whole part of a Gaussian around 1 + factor."""
        drawn = NormalDist(1 + factor, self.sigma).inv_cdf(uniform) if uniform else 0.0
        return int(min(max(drawn, 2.0), 2 * factor))


METHOD = Cream
EXAMPLES = (Cream(), Cream(sigma=1.5))
BAD = ({"sigma": 0.0},)
