"""The contract of attention policies: bands, and a factor on each query's logits."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.bands import Band, LayerContext
from longreach.core.method import Method


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(Method):
    """What a query sees. The engine runs `bands`; `reference` states the same per pair, and the tests hold one to the other."""

    kind: ClassVar[str] = "attention"

    def bands(self, layer: LayerContext) -> tuple[Band, ...] | None:
        """The bands of a layer, pairwise disjoint; None leaves the choice to the other methods of the stack."""
        return None

    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor | None:
        """Factor on the logits of queries at the indices `t` (same shape as `t`, float32); None means 1."""
        return None

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i
