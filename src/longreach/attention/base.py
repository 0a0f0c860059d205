"""The contracts of attention methods: what a query sees (bands, chosen chunks), what becomes of logits, and an encoder's temperature."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.bands import LayerContext, Selection, View
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
        """Factor on the logits of queries that `t` [B, T] tokens come before, float32: [B, T], or [B, H, T] by head; None means 1."""
        return None

    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor | None:
        """Added to the logits of pairs that are `distance` >= 0 apart (any shape, float or int): [H, *distance.shape]; None means 0.

        The distance is the one that the bands give the rotary embedding. A soft cap on logits acts before it.
        """
        return None

    def aging(self, hidden: Tensor, layer: LayerContext) -> Tensor | None:
        """By how much each token ages those before it, [B, H, T] float32, of the layer's input [B, T, hidden_size]; None: not at all.

        The sum over the tokens after a key, up to and with the query, is subtracted from their logit.
        """
        return None

    def prefix(self, q: Tensor, layer: LayerContext) -> tuple[Tensor, Tensor] | None:
        """What queries q [B, H, T, D] (as the bands first rotate them) see besides the text; None: nothing.

        Its (sum of values, each times the exponential of its logit, [B, H, T, D]; sum of these exponentials [B, H, T]), float32.
        """
        return None

    def decay(self, pairs: int, layer: LayerContext) -> Tensor | None:
        """What each of the `pairs` of rotated dimensions loses a token of distance: a factor up to 1, [pairs] float32; None means 1.

        Positions have to stay small under it: keys are divided by what queries are multiplied by.
        """
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


PROBE = LayerContext(layer_idx=0, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2, hidden_size=2, trained_window=2)


def goes_by_text(policy: AttentionPolicy) -> bool:
    """Whether what a token sees depends on more than positions: on the text, its length, or the content of chunks."""
    chooses = any(isinstance(view, Selection) for view in policy.bands(PROBE) or ())
    return policy.info.reads_text or policy.info.length_dependent or chooses


@dataclass(frozen=True, kw_only=True)
class EncoderTemperature(Method):
    """Divides all that the softmax of an encoder's self-attention sees, products and relative bias (T5 and its kin), by a temperature."""

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def temperature_at(self, length: int, window: int) -> float:
        """For a text of `length` tokens, padding not counted, in a model with a trained window of `window` tokens."""

    def stated_window(self) -> int | None:
        """The trained window, where the settings state one; None leaves it to the model's config."""
        return None
