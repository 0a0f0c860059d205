"""PoSE: a sequence is a few chunks of a longer text, each moved on by a random skip, so that short sequences show long distances.

Paper: PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training, 2023, arXiv:2309.10400
Cost: that of training at the sequence length, whatever the target.
Limits: a sequence never shows more keys than its length: attention over many keys is not trained.
Differs from the paper: nothing; with 2 chunks the lengths are drawn as in its code (the first has at most half), and so for more. Chunks of
text skip as far as positions do; the code takes a sequence from at most 5 times its length of text.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.training.samplers.base import Array, Geometry, PositionSampler


@dataclass(frozen=True, kw_only=True)
class Pose(PositionSampler):
    """Args: chunks: of a sequence (paper: 2; at least 2)."""

    info: ClassVar = MethodInfo(
        title="PoSE: Efficient Context Window Extension of LLMs via Positional Skip-wise Training",
        paper="arXiv:2309.10400",
        training_free=False,
        claims=(
            Claim(
                text="trained on 2k-token sequences, perplexity at 16k is close to that of training at full length",
                metric="sampler_above_full",
                condition="tuned",
                at_most=0.05,
            ),
        ),
    )
    chunks: int = 2

    def __post_init__(self) -> None:
        at_least(self, 2, "chunks")

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """At least a token a chunk."""
        length = super().seq_len(wanted, trained_window, target)
        if length < self.chunks:
            raise InputError(f"{self}: sequences of {length} tokens cannot hold {self.chunks} chunks")
        return length

    def span(self, geometry: Geometry) -> int:
        """The target: the chunks' text skips as their positions do."""
        return geometry.target

    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """Chunk i stands at u_i + its place in the sequence and shows the text at v_i + that place; u and v ascend from 0.

        Each u_i is uniform from u_{i-1} to target - seq_len, and v_i likewise, independently.
        """
        longest = -(-geometry.seq_len // self.chunks)
        lengths = rng.integers(1, longest + 1, size=self.chunks - 1)
        lengths = np.append(lengths, geometry.seq_len - lengths.sum())
        room = geometry.target - geometry.seq_len
        place = np.arange(geometry.seq_len)
        content, skips = (np.repeat(_ascending(rng, self.chunks, room), lengths) for _ in range(2))
        return place + content, place + skips


def _ascending(rng: np.random.Generator, count: int, most: int) -> Array:
    """[count] of 0, then each uniform from the one before to `most`."""
    values = [0]
    while len(values) < count:
        values.append(int(rng.integers(values[-1], most + 1)))
    return np.array(values)


METHOD = Pose
EXAMPLES = (Pose(), Pose(chunks=4))
BAD = ({"chunks": 1},)
