"""Segmented sequences: a sequence is several segments of a text as long as the target, each at its true positions.

Paper: Extending Input Contexts of Language Models through Training on Segmented Sequences, 2023, arXiv:2310.14633
Cost: that of training at the sequence length, whatever the target.
Limits: needs texts as long as the target; a sequence never shows more keys than its length.
Differs from the paper: its `chunk` variant alone, written from accounts of it.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class Segmented(PositionSampler):
    """Args: segments: of a sequence, equally long (paper: 4; at least 2)."""

    info: ClassVar = MethodInfo(
        title="Extending Input Contexts of Language Models through Training on Segmented Sequences",
        paper="arXiv:2310.14633",
        training_free=False,
        claims=(
            Claim(
                text="segments of four times the input length lower perplexity at that length",
                metric="sampler_below_untuned",
                condition="tuned",
                at_least=0.0,
            ),
        ),
    )
    segments: int = 4

    def __post_init__(self) -> None:
        at_least(self, 2, "segments")

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """A whole number of tokens a segment."""
        length = super().seq_len(wanted, trained_window, target)
        if length % self.segments:
            raise InputError(f"{self}: sequences of {length} tokens do not come apart into {self.segments} segments of equal length")
        return length

    def span(self, geometry: Geometry) -> int:
        """The target: the text stands at its true positions."""
        return geometry.target

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Every way to lay the segments into the target without overlap is as likely."""
        length = geometry.seq_len // self.segments
        free = geometry.target - geometry.seq_len  # tokens between the segments
        slots = np.sort(rng.choice(free + self.segments, size=self.segments, replace=False))
        starts = slots - np.arange(self.segments) + np.arange(self.segments) * length
        positions = (starts[:, None] + np.arange(length)).reshape(-1)
        return positions, positions


METHOD = Segmented
EXAMPLES = (Segmented(), Segmented(segments=2))
BAD = ({"segments": 1},)
