"""Tokens of a method's own that stand in the text, and that nobody outside the model sees: landmarks, beacons, memory tokens.

They run through all layers with the tokens of the text, and their states are dropped where logits are made. Slots, indices and lengths go
on counting the tokens of the text alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from longreach.core.bands import TRUE, PositionMap

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Spread(PositionMap):
    """t + t // every * count: places in a text with `count` inserted tokens after every `every` of its own."""

    every: int
    count: int = 1

    def __call__(self, t: "Tensor") -> "Tensor":
        """Whole positions."""
        return t + t // self.every * self.count


@dataclass(frozen=True, kw_only=True, slots=True)
class InsertedRun:
    """Queries that follow on one another, and all that they may see, of B rows laid out alike.

    Args: q: [B, H, T, D], unrotated. inserted: whether these are inserted tokens. index: [T] of each query: the index of its token, or the
    number of the inserted one, counted from 0. keys, values: [B, K, S, D] of the text's tokens from the index `oldest` on, keys under
    `Inserted.keys`. own_keys, own_values: [B, K, E, D] of all inserted tokens that were read so far, keys unrotated; what comes after a
    query is among them. scale, softcap: of logits. turn: (x [B, H, n, D], positions [n] or [B, H, n]) -> x at these positions. attend,
    attend_chunks: as `QueryRun` has them (core/bands.py), attend_chunks without the sum over the chunks: output [B, H, T, P, D] and
    log-sum-exp [B, H, T, P] of each; its queries may be [B, H, T, P, D], turned for each chunk.
    """

    q: "Tensor"
    inserted: bool
    index: "Tensor"
    keys: "Tensor"
    values: "Tensor"
    oldest: int
    own_keys: "Tensor"
    own_values: "Tensor"
    scale: float
    softcap: float | None
    turn: "Callable[[Tensor, Tensor], Tensor]"
    attend: "Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]"
    attend_chunks: "Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"


class InsertedReader(Protocol):
    """Computes attention to and from inserted tokens. Implementations are hashable."""

    def pieces(self, run: InsertedRun) -> "Iterator[tuple[slice, Tensor, Tensor]]":
        """Queries of the run, their output [B, H, n, D] and its log-sum-exp [B, H, n], by which it is weighed against others.

        Of the text's queries, what they see beside the bands of the layer; of inserted ones, all that they see.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Inserted:
    """Tokens that stand in the text: `count` of them behind every `every` tokens of a row, read right after the last of those.

    reader: computes what is seen beside the bands, which are for the text's own queries. keys: where the text's keys stand. reach: the
    farthest tokens before a query that it asks for; None: any.
    """

    reader: InsertedReader
    every: int
    count: int = 1
    keys: PositionMap = TRUE
    reach: int | None = None

    def before(self, tokens: int) -> int:
        """How many stand before the token at this index."""
        return max(0, tokens) // self.every * self.count
