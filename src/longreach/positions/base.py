"""The contract of position methods that change the rotary frequencies."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longreach.core.method import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Rope:
    """The rotary embedding of a checkpoint. Args: theta: base. dim: rotated dimensions of a head. trained_window: tokens."""

    theta: float
    dim: int
    trained_window: int

    def inv_freq(self, theta: float | None = None) -> Tensor:
        """[dim / 2] radians a token, float32: theta ** (-2i / dim)."""
        exponents = torch.arange(0, self.dim, 2, dtype=torch.int64).float() / self.dim
        return 1.0 / ((self.theta if theta is None else theta) ** exponents)


@dataclass(frozen=True, kw_only=True)
class PositionsMethod(Method):
    """Changes the frequencies of a rotary embedding (rope type `default`).

    Methods that depend on the length seen set `length_dependent` in `info` and take it from `seq_len`; the engine then keeps keys so
    that none stands under an older frequency. `length_step`: the frequencies change every so many tokens.
    """

    kind: ClassVar[str] = "positions"

    @abstractmethod
    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """([dim / 2] radians a token, factor on cos and sin) for a context of `seq_len` tokens."""

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """The same as transformers' `rope_parameters`, where it can express it; exportable methods return it."""
        return None

    def length_step(self, rope: Rope) -> int | None:
        """For length-dependent methods: tokens between changes of the frequencies."""
        return None
