"""The contract of attention policies: bands, chosen chunks, and a factor on each query's logits."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.bands import LayerContext, View
from longreach.core.method import Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Vectors:
    """What a definition by content may look at, of one row: q [H, T, D], k and v [H, T, D], float64, unrotated; the scale of logits.

    rotated: (x [..., T, D], positions [T]) -> x rotated to these positions.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    rotated: Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(Method):
    """What a query sees. The engine runs `bands`; `reference` states the same per pair, and the tests hold one to the other.

    interpolates_logits: at a broken relative position, `reference` means the logits of the two whole ones around, interpolated.
    """

    kind: ClassVar[str] = "attention"
    interpolates_logits: ClassVar[bool] = False

    def bands(self, layer: LayerContext) -> tuple[View, ...] | None:
        """The bands and selections of a layer, pairwise disjoint; None leaves the choice to the other methods of the stack."""
        return None

    def text_length(self, t: Tensor, layer: LayerContext) -> Tensor:
        """Of a method that declares `length_dependent`: the length that the bands of queries at the indices `t` are for (same shape)."""
        raise NotImplementedError

    def bands_at(self, layer: LayerContext, length: int) -> tuple[View, ...]:
        """Of a method that declares `length_dependent`: the bands of a layer for queries of that length; `bands` those of a short text."""
        raise NotImplementedError

    def read(self, state: tuple[int, ...] | None, text: str, trained_window: int) -> tuple[int, ...]:
        """Of a method that declares `reads_text`: the state after one more token, which stands for `text`; None before the first one.

        It begins with the number of the token's block and its place in that block, and what comes later changes neither.
        """
        raise NotImplementedError

    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor | None:
        """Factor on the logits of queries at the indices `t` (same shape as `t`, float32); None means 1."""
        return None

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """The definition of a method that decides by content, per head: [H, T, T] each. Then `reference` gives the farthest that can be."""
        return self.reference(i, j)

    def reference_by_text(self, i: Tensor, j: Tensor, texts: Sequence[str], pairs: int, trained_window: int) -> tuple[Tensor, Tensor]:
        """The definition of a method that declares `reads_text`: relative positions for each pair of dimensions [T, T, pairs], and visible.

        texts: what the token at each index stands for; indices below 0 are padding.
        """
        raise NotImplementedError
