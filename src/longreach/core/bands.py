"""Bands: which queries and keys meet, and at which positions the rotary embedding sees them.

Two coordinates are kept apart. The *slot* is the true index of a token in the stream; causality and bands are stated in it. The
*index* `t` is the slot relative to the row's first real token (they differ by left padding); position maps turn it into the
*position* that rotates the vector.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class PositionMap:
    """index -> position. Hashable: keys are stored rotated, one copy for each map in use.

    position = min(t // group + shift, maximum), or `constant` where that is given. A float `group` divides without rounding.
    """

    group: float = 1
    shift: float = 0
    maximum: int | None = None
    constant: int | None = None

    def __call__(self, t: "Tensor") -> "Tensor":
        """Positions of the indices `t` (any shape)."""
        if self.constant is not None:
            return t * 0 + self.constant
        if self.group != 1:
            t = t // self.group if isinstance(self.group, int) else t / self.group
        if self.shift:
            t = t + self.shift
        return t if self.maximum is None else t.clamp(max=self.maximum)


TRUE = PositionMap()


def grouped(group: int, shift: int = 0) -> PositionMap:
    """t // group + shift."""
    return PositionMap(group=group, shift=shift)


def scaled(divisor: float, shift: float = 0) -> PositionMap:
    """t / divisor + shift, without rounding."""
    return PositionMap(group=float(divisor), shift=shift)


def clamped(maximum: int) -> PositionMap:
    """min(t, maximum)."""
    return PositionMap(maximum=maximum)


def constant(value: int) -> PositionMap:
    """The same position for every token."""
    return PositionMap(constant=value)


@dataclass(frozen=True, slots=True)
class Band:
    """Query i and key j meet when lo <= i - j <= hi (slots), and, with `sinks`, only the row's first `sinks` tokens as keys
    (with `after`, only the tokens after the first `after`).

    The bands of a method are disjoint: every pair is in one band at most, and all bands share one softmax.
    """

    queries: PositionMap = TRUE
    keys: PositionMap = TRUE
    lo: int = 0
    hi: int | None = None
    sinks: int | None = None
    after: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerContext:
    """What a method may know of a layer. Args: trained_window: tokens the checkpoint was trained on."""

    layer_idx: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    trained_window: int


FULL = (Band(),)
