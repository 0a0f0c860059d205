"""Memory beside the tokens read last: stores that take tokens over when the text is cut.

A layer's memory is an ordered list of parts: bands over what is kept whole (core/bands.py), and at most one of the stores below, which
takes tokens out of it. Between two cuts (core/cuts.py) a store does not change, so every query between them sees the same of it. All parts
share one softmax.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from longreach.core.bands import TRUE, Band, Computed, LayerContext, PositionMap, Selection
from longreach.core.cuts import Cut, Every, FromPromptEnd, PromptEnd
from longreach.core.inserted import Inserted

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Storage = Literal["device", "host", "disk"]  # where blocks lie: disk: a temporary file, mapped into memory
Signal = Literal["keys", "turned", "values", "received", "observed", "attended", "entropy", "queries"]


class Moments(Protocol):
    """Of the queries of each head, unrotated, in float64."""

    @property
    def mean(self) -> "Tensor":
        """[B, H, D]."""
        ...

    @property
    def covariance(self) -> "Tensor":
        """[B, H, D, D], divided by the number of queries."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Signals:
    """What a policy may look at when it decides about n tokens, oldest first, in B rows laid out alike. Only what it asked for is there.

    Args: seen: tokens of a row so far. index: of each token in its row, [B, K, n]; -1 where a head holds fewer than others. keys, turned,
    values: [B, K, n, D]; keys unrotated, and turned to where they stand, as the cache has them. received: [B, K, n] float32, the attention
    that each token got from all queries since it came, itself included, summed over the query heads that share its key-value head; exact,
    by the log-sum-exp of the whole softmax. observed: the same from the last queries only. last, times (asked for as
    `attended`): [B, K, n], the index of the last query that had the token among the `Kept.top` keys to which it paid the most attention, -1
    where none had, and how many had, over all query heads that share its key-value head; weights count to 10 binary digits, and of equal
    ones all do. entropy: [B, K, n] float32, -log p of each token under the model, in nats; 0 of the first. queries: all of a row so far,
    but for its first `Kept.skip`. scale: of the softmax. turn: (x [B, K, n, D], positions [B, K, n]) -> x at these positions.
    """

    seen: int
    index: "Tensor"
    keys: "Tensor | None" = None
    turned: "Tensor | None" = None
    values: "Tensor | None" = None
    received: "Tensor | None" = None
    observed: "Tensor | None" = None
    last: "Tensor | None" = None
    times: "Tensor | None" = None
    entropy: "Tensor | None" = None
    queries: Moments | None = None
    scale: float = 1.0
    turn: "Callable[[Tensor, Tensor], Tensor] | None" = None


class Keeper(Protocol):
    """Decides which tokens stay."""

    def keep(self, signals: Signals, layer: LayerContext) -> "Tensor":
        """Which tokens stay, [B, K, n] bool; how many may differ from head to head."""
        ...


class Thinner(Protocol):
    """Chooses the channels that stay of the keys that are taken over. Implementations are hashable."""

    @property
    def observe(self) -> int:
        """The last queries before the cut, which it chooses by."""
        ...

    @property
    def exempt(self) -> int:
        """The last tokens before the cut, which are not taken over: their keys stay whole."""
        ...

    def channels(self, keys: "Tensor", queries: "Tensor") -> "Tensor":
        """The channels that stay of each key-value head, [B, K, D'], ascending.

        keys: [B, K, m, D] of all tokens that stay, exempt ones, too; 0 of those that do not. queries: [B, H, n, D], the last ones before
        the cut. Both as the cache has them, rotated.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """Tokens that a policy keeps, of each key-value head its own; what it does not keep is gone.

    keeper: decides, at every cut, about all tokens held. signals: what it looks at. observe: queries whose attention `observed` adds up.
    top: keys of a query that count as attended to. skip: first queries of a row that are left out of `queries`.
    packed: keys stand at places inside the cache, the last one right before the cut, instead of at their own positions.
    thinner: keys are kept with some of their channels only; for one cut, and keys that are not packed.
    """

    keeper: Keeper
    cut: Cut
    signals: tuple[Signal, ...] = ()
    observe: int = 0
    top: int = 0
    skip: int = 0
    packed: bool = False
    thinner: Thinner | None = None

    @property
    def last_queries(self) -> int:
        """Queries right before a cut that are looked at again there."""
        return max(self.observe, 0 if self.thinner is None else self.thinner.observe)

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """The position maps that it needs keys under."""
        return (TRUE,)


class Codec(Protocol):
    """Writes the keys or values of a chunk in fewer bytes. Implementations are hashable."""

    def encode(self, x: "Tensor", side: Literal["keys", "values"]) -> "dict[str, Tensor]":
        """The code of x [B, K, C, D] (keys rotated)."""
        ...

    def decode(self, code: "dict[str, Tensor]", side: Literal["keys", "values"]) -> "Tensor":
        """What is left of x, [B, K, C, D]; of several codes joined along the dimension of chunks, [B, K, n, C, D]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Coded:
    """Chunks of tokens in fewer and fewer bits as they grow older; decoded when they are attended to.

    chunk: tokens that are coded together. exact: chunks before the query's own that stay as they are. steps: (chunks, codec), nearest
    first; those of a step that is full are decoded and written by the codec of the next. The last step has no end (None).
    """

    chunk: int
    exact: int
    steps: tuple[tuple[int | None, Codec], ...]

    @property
    def cut(self) -> Every:
        """At every chunk."""
        return Every(self.chunk)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """None."""
        return ()

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """The position maps that it needs keys under."""
        return (TRUE,)


class BlockChooser(Protocol):
    """Finds the blocks that a query needs. Implementations are hashable."""

    def represent(self, keys: "Tensor", received: "Tensor | None") -> "Tensor":
        """What is kept at hand of a block to find it by, [B, K, E].

        keys [B, K, C, D], turned by the map of the store; received [B, K, C]: the attention that each token got while it was near, where
        the store asks for that.
        """
        ...

    def select(self, q: "Tensor", representatives: "Tensor") -> "Tensor":
        """The blocks [B, H | 1, T, P] that each query of each head, or all heads, see, -1 for none.

        q [B, H, T, D], turned; representatives [B, K, n, E].
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """All of the text in blocks, found by what represents them, and loaded when a query needs them.

    chunk: tokens a block. near: blocks before the query's own that it sees whole, at true distances. queries, keys: how both are turned
    where a query sees a block. storage: where blocks lie. loaded: blocks of a layer that stay on the device where they lie elsewhere,
    those used last. shared: queries of the prompt that see the same blocks, chosen where the first of them stands by as many queries before
    it; a multiple of `chunk`, or 1, where each chooses for itself. The last ones of a prompt, from `shared` to twice as many, and what
    follows choose for themselves in any case. after_prompt: up to the end of the prompt all is seen. signals: what representatives are
    made of, beside keys.
    """

    chooser: BlockChooser
    chunk: int
    near: int
    queries: PositionMap = TRUE
    keys: PositionMap = TRUE
    storage: Storage = "host"
    loaded: int = 32
    shared: int = 1
    after_prompt: bool = False
    signals: tuple[Signal, ...] = ()

    @property
    def cut(self) -> Every | FromPromptEnd:
        """At every block."""
        return FromPromptEnd(self.chunk) if self.after_prompt else Every(self.chunk)

    @property
    def last_queries(self) -> int:
        """Queries right before a cut that are looked at again there."""
        return self.shared if self.shared > 1 else 0

    def share(self, index: int, prompt: int) -> bool:
        """Whether the `shared` queries from this index on, a multiple of it, see the same blocks; prompt: tokens of the row's prompt."""
        return self.shared > 1 and 0 < index <= prompt - 2 * self.shared

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """The position maps that it needs keys under."""
        return (TRUE,) if self.keys == TRUE else (TRUE, self.keys)


class Clusterer(Protocol):
    """Groups the keys of a prompt, and finds the groups that a query needs. Implementations are hashable."""

    @property
    def observe(self) -> int:
        """The last queries of the prompt, which say how much is needed; as many of its last tokens stay outside of all groups."""
        ...

    def cluster(self, keys: "Tensor", queries: "Tensor", scale: float) -> "tuple[Tensor, Tensor, Tensor]":
        """The group of each key [B, K, n], a centroid for each group [B, K, c, D], and the bar [B] that a group has to pass.

        keys: [B, K, n, D], queries: [B, H, w, D], as the cache has them. scale: of the softmax.
        """
        ...

    def select(self, q: "Tensor", centroids: "Tensor", sizes: "Tensor", bar: "Tensor", scale: float) -> "Tensor":
        """The groups that each query of each head sees, [B, H, T, c] bool; q [B, H, T, D], sizes: keys in each group, [B, K, c]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Clustered:
    """The keys of a prompt in groups; what follows sees all keys of the groups that it chooses."""

    chooser: Clusterer

    @property
    def cut(self) -> PromptEnd:
        """Once."""
        return PromptEnd()

    @property
    def signals(self) -> tuple[Signal, ...]:
        """None."""
        return ()

    @property
    def last_queries(self) -> int:
        """Queries right before the cut that are looked at again there."""
        return self.chooser.observe

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """The position maps that it needs keys under."""
        return (TRUE,)


class Carrier(Protocol):
    """Makes what a window leaves to the next one. Implementations are hashable."""

    def carry(self, hidden: "Tensor", layer: LayerContext) -> "tuple[Tensor, Tensor]":
        """A key and a value, [B, K, 1, D] each, of the hidden states [B, n, hidden size] of a window; the key is not turned any more."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """One key and value made of the hidden states that another layer's attention got of the window before the query's own.

    That may be a later layer: the text is read window by window. window: tokens. source: that layer, from 0 among those with full
    attention. queries: how a query is turned where it meets the key.
    """

    maker: Carrier
    window: int
    source: int
    queries: PositionMap = TRUE

    @property
    def cut(self) -> Every:
        """At every window."""
        return Every(self.window)

    @property
    def signals(self) -> tuple[Signal, ...]:
        """None."""
        return ()

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """None: the window's keys are those of its band."""
        return ()


Store = Kept | Coded | Blocks | Clustered | Carried


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """Some key-value heads of a layer, whose queries see something else than those of the others, and of which no more is kept than that.

    Where a layer has groups, each of its key-value heads is in one, and nothing else is seen.
    """

    heads: tuple[int, ...]
    bands: tuple[Band, ...]


View = Band | Selection | Computed | Inserted | Store | HeadGroup
