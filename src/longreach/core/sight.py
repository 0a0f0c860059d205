"""In what terms cache policies are defined: what a definition may look at, and what one query sees by it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from longreach.core.bands import LayerContext


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What one query sees, by a policy's definition. For tests.

    Args: tokens: indices that each key-value head sees, or each head. relative: [K, T] how far away each stands; None: where it is. keys,
    values: [K, T, D] in place of theirs, keys rotated. beside: keys, values [K, n, D] seen besides, and where the query stands then.
    """

    tokens: Sequence[Sequence[int]]
    relative: "Tensor | None" = None
    keys: "Tensor | None" = None
    values: "Tensor | None" = None
    beside: "tuple[Tensor, Tensor, int] | None" = None


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What a definition may look at before query `i`, of one row in float64.

    Args: layer: that it is of. prompt: tokens of the row's prompt. entropy: [T] -log p of each token, 0 of the first; of the later ones it
    is what it is only where those before them are. attention: [H, i, T] weights of all earlier queries. q: [H, T, D], k, v: [K, T, D],
    unrotated. scale: of the softmax. rotated: (x [..., T, D], positions [T]) -> x at these positions. held: tokens that each key-value head
    holds at a cut. worths: scores at cuts, remembered: nothing later changes them. hidden: what each full layer got, [T, hidden size].
    """

    layer: "LayerContext"
    prompt: int
    entropy: "Tensor"
    attention: "Tensor"
    q: "Tensor"
    k: "Tensor"
    v: "Tensor"
    scale: float
    rotated: "Callable[[Tensor, Tensor], Tensor]"
    held: Sequence[Sequence[int]] = ()
    worths: dict[int, list[list[float]]] = field(default_factory=dict)
    hidden: "Sequence[Tensor]" = ()

    def by_kv_head(self) -> "Tensor":
        """The attention summed over the query heads of each key-value head, [K, i, T]."""
        heads, queries, tokens = self.attention.shape
        return self.attention.view(len(self.k), heads // len(self.k), queries, tokens).sum(1)
