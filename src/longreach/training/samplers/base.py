"""The contract of position samplers: which tokens of a text a training sequence shows, and at which positions."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from longreach.core.errors import InputError
from longreach.core.method import Method

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """Lengths in tokens. Args: seq_len: of a training sequence. target: that the model is to reach. trained_window: that it knows."""

    seq_len: int
    target: int
    trained_window: int


@dataclass(frozen=True, kw_only=True)
class PositionSampler(Method):
    """Draws the positions of training sequences.

    uniform_scaling: it needs a positions method that scales all frequencies alike. skips: positions leave some out.
    """

    kind: ClassVar[str] = "sampler"
    uniform_scaling: ClassVar[bool] = False
    skips: ClassVar[bool] = True

    def seq_len(self, wanted: int | None, trained_window: int, target: int) -> int:
        """Tokens of a training sequence, where `wanted` are asked for (default: the trained window).

        Raises: InputError for a length that this sampler cannot train at.
        """
        length = trained_window if wanted is None else wanted
        if not 2 <= length <= target:
            raise InputError(f"{self}: sequences of {length} tokens; give 2 to {target}, the target")
        return length

    def span(self, geometry: Geometry) -> int:
        """Tokens of running text that a sequence is taken from; default: its own length."""
        return geometry.seq_len

    @abstractmethod
    def sample(self, rng: np.random.Generator, geometry: Geometry) -> tuple[Array, Array]:
        """(indices [seq_len], positions [seq_len]): ascending indices into `span` tokens of text, and their positions.

        Positions ascend, from 0 to target - 1; they are whole numbers unless `uniform_scaling`.
        """
