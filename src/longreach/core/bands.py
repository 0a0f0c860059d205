"""Bands: which queries and keys meet, and at which positions the rotary embedding sees them.

Two coordinates are kept apart. The *slot* is the true index of a token in the stream; causality and bands are stated in it. The
*index* `t` is the slot relative to the row's first real token (they differ by left padding); position maps turn it into the
*position* that rotates the vector.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class PositionMap(ABC):
    """index -> position. Hashable: keys are stored rotated, one copy for each map in use. These are all that exist:

    `Grouped` (and `TRUE`), `Scaled`, `Clamped`, `Constant`, `Within`, and two that the engine treats in ways of their own: `Blended`
    and `ByBlocks`. A method may derive one of its own from `PositionMap`.
    """

    __slots__ = ()

    @abstractmethod
    def __call__(self, t: "Tensor") -> "Tensor":
        """Positions of the indices `t` (any shape)."""

    @property
    def edge(self) -> int | None:
        """The index from which on the map changes what it does, where there is one; tests look there."""
        return None


@dataclass(frozen=True, slots=True)
class Grouped(PositionMap):
    """t // group + shift."""

    group: int = 1
    shift: int = 0

    def __call__(self, t: "Tensor") -> "Tensor":
        """Whole positions."""
        t = t if self.group == 1 else t // self.group
        return t + self.shift if self.shift else t


TRUE = Grouped()


@dataclass(frozen=True, slots=True)
class Scaled(PositionMap):
    """t / divisor + shift, without rounding."""

    divisor: float
    shift: float = 0

    def __call__(self, t: "Tensor") -> "Tensor":
        """Broken positions."""
        return t / self.divisor + self.shift


@dataclass(frozen=True, slots=True)
class Clamped(PositionMap):
    """min(t, maximum)."""

    maximum: int

    def __call__(self, t: "Tensor") -> "Tensor":
        """Whole positions."""
        return t.clamp(max=self.maximum)

    @property
    def edge(self) -> int:
        """The last index that moves."""
        return self.maximum


@dataclass(frozen=True, slots=True)
class Constant(PositionMap):
    """The same position for every token."""

    value: int

    def __call__(self, t: "Tensor") -> "Tensor":
        """`value`."""
        return t * 0 + self.value


@dataclass(frozen=True, slots=True)
class Within(PositionMap):
    """min(t % chunk + shift, maximum): places inside chunks."""

    chunk: int
    shift: int = 0
    maximum: int | None = None

    def __call__(self, t: "Tensor") -> "Tensor":
        """Whole positions."""
        t = t % self.chunk + self.shift
        return t if self.maximum is None else t.clamp(max=self.maximum)

    @property
    def edge(self) -> int | None:
        """The last position."""
        return self.maximum


@dataclass(frozen=True, slots=True)
class Blended(PositionMap):
    """t / group; at a broken position a vector is the blend of itself at the two whole positions around.

    So its logits are interpolated, where a broken position interpolates angles.
    """

    group: int

    def __call__(self, t: "Tensor") -> "Tensor":
        """Broken positions."""
        return t / self.group

    def around(self, t: "Tensor") -> "tuple[Tensor, Tensor]":
        """The whole position at or below that of the indices `t`, and how far on the way to the next it is [0, 1)."""
        return t // self.group, t % self.group / self.group


@dataclass(frozen=True, slots=True)
class ByBlocks(PositionMap):
    """Positions of the text's blocks.

    That share of the pairs of dimensions, the fastest, turns with place + shift, a token's place in its block, and the rest with the
    block's number + shift. Here `t` are both, [..., 2]: number and place.
    """

    share: float
    shift: int = 0

    def __call__(self, t: "Tensor") -> "Tensor":
        """Numbers and places, shifted."""
        return t + self.shift


@dataclass(frozen=True, slots=True)
class Band:
    """Query i and key j <= i meet when lo <= i - j <= hi (slots), and, with `sinks`, only the row's first `sinks` tokens as keys
    (with `after`, only the tokens after the first `after`; with `before`, only the first `before`, wherever they are kept).

    With `chunk`, lo and hi count chunks: lo <= i // chunk - j // chunk <= hi (indices). The bands of a method are disjoint: every pair
    is in one band at most, and all bands share one softmax.

    top: of the keys that a query meets, each of its heads sees only the `top` with the largest inner products; they count to 10 binary
    digits, and of equal ones the later are seen. shared: while texts are trained among each other (engine/among.py), queries meet such keys
    of other rows of the batch, too, as if these were of their own row.
    """

    queries: PositionMap = TRUE
    keys: PositionMap = TRUE
    lo: int = 0
    hi: int | None = None
    sinks: int | None = None
    after: int = 0
    before: int | None = None
    chunk: int = 1
    top: int | None = None
    shared: bool = False

    @property
    def reach(self) -> int | None:
        """The largest i - j that can meet; None: any."""
        return None if self.hi is None else (self.hi + 1) * self.chunk - 1

    @property
    def endless(self) -> bool:
        """Whether keys meet a query however far they are apart: then distances need not be known."""
        return self.lo == 0 and self.hi is None and self.before is None


class Summarizer(Protocol):
    """Sums up chunks once they are full; implementations are hashable."""

    def summarize(self, q: "Tensor", k: "Tensor", v: "Tensor", scale: float) -> "Tensor":
        """What is kept of full chunks, [B, H, n, E]; q [B, H, n, C, D], k and v [B, K, n, C, D], at the positions that keys have."""
        ...


class Chooser(Summarizer, Protocol):
    """Chooses chunks for every query and head, by summaries or by keys; implementations are hashable."""

    def select(self, q: "Tensor", summaries: "Tensor", count: "Tensor") -> "Tensor":
        """Chunks [B, H | 1, T, P] in the order of their places, -1 for none; q [B, H, T, D] unrotated, summaries [B, H, n, E].

        With `Selection.finders` the keys of all chunks come instead of summaries, [B, K, n, C, D]. count [T]: each query may choose from
        the first so many chunks only.
        """
        ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Chunks of `chunk` keys that each query of each head chooses for itself, all tokens of them seen.

    lo: chunks between a query's own and the nearest it may choose (>= 1). queries: how it is rotated for the chunk at each place of its
    choice; the last map stands for all further places. finders: chunks are chosen by all their keys, turned so, instead of by summaries.
    Shares one softmax with the bands, which must not hold the same pairs.
    """

    chooser: Chooser
    chunk: int
    queries: tuple[PositionMap, ...] = (TRUE,)
    keys: PositionMap = TRUE
    lo: int = 1
    finders: PositionMap | None = None

    @property
    def maps(self) -> tuple[PositionMap, ...]:
        """The position maps that it needs keys under."""
        return (self.keys,) if self.finders is None else (self.keys, self.finders)


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryRun:
    """Queries that follow on one another, and all that they may see, of B rows laid out alike.

    Args: q: [B, H, T, D]. first: index of the first. prompt: tokens of the rows' prompt. keys, values: [B, K, S, D] of every token up to
    the last query's, from index 0 on, or, with a `Computed.reach`, of the last of them, with what the first query sees. Queries and keys
    stand where the view has them. queries: (begin, end) -> those of these indices [B, H, n, D], which may lie before the run by as many as
    `Computed.queries`. attend: (q, k, v, mask) -> output [B, H, T, D] and
    log-sum-exp [B, H, T] of a softmax over k, v [B, K, S, D]; mask: bool [B, 1 | H, T, S], what each query sees, or None. attend_chunks:
    (q, k, v, chosen) -> the same over the chunks of k, v [B, K, n, C, D] that each query chose, [B, H, T, P], -1 for none. memo: kept from
    run to run, but for when tokens are taken back; what is in it may not hang on where runs end. summaries: [B, H, n, E] of all chunks that
    are full by the end of the run, where `Computed.summarizer` makes some; None before the first is full. training: whether the model is in
    training, so that weights which follow what is read (attention/base.py) may note it.
    """

    q: "Tensor"
    first: int
    prompt: int
    keys: "Tensor"
    values: "Tensor"
    queries: "Callable[[int, int], Tensor]"
    attend: "Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]"
    attend_chunks: "Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]"
    memo: dict[object, Any]
    summaries: "Tensor | None" = None
    training: bool = False


class AttentionReader(Protocol):
    """Computes attention in a way of its own. Implementations are hashable."""

    def pieces(self, run: QueryRun) -> "Iterator[tuple[slice, Tensor, Tensor]]":
        """Queries of the run, their output [B, H, n, D] and its log-sum-exp [B, H, n], by which it is weighed against others.

        Weights that are no softmax have none: where they are all that a layer sees, 0 will do, against which learned sinks are weighed.
        What a query sees may hang on tokens up to its own alone, and not on where the run begins or ends.
        """
        ...


@dataclass(frozen=True, slots=True)
class Computed:
    """What a method computes itself: a search for what is far away, an estimate, weights that are no softmax.

    Shares one softmax with the bands, if there are any, which must not hold the same pairs. positions: of queries and keys. queries: that
    the method looks at besides those of a run: so many before it. waits: what is seen hangs on where the prompt ends. summarizer: sums up
    each chunk of `chunk` tokens once it is full. normalised: queries are brought to one length, by which a factor on their logits would be
    lost, or there are no logits. reach: the largest i - j of a query i and a key j that it looks at, for what is farther back is not kept;
    None: any.
    """

    reader: AttentionReader
    positions: PositionMap = TRUE
    queries: int = 0
    waits: bool = False
    summarizer: Summarizer | None = None
    chunk: int = 1
    normalised: bool = False
    reach: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerContext:
    """What a method may know of a layer.

    Args: trained_window: tokens the checkpoint was trained on. full_layers: those with full attention, which methods act in. first: the
    first of them. weights: those that methods have in this layer, as `t5_bias.table` (engine/weights.py); what only the first has, all
    share. embeddings: the model's own [V, hidden_size], where weights are made, which may begin at them. decoder: the weights of the
    model's decoder where it is cut off after so many layers, by name. probe: no layer of a model, but one to ask a policy what it is
    like.
    """

    layer_idx: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden_size: int
    trained_window: int
    full_layers: tuple[int, ...] = (0,)
    first: bool = False
    weights: "Mapping[str, Tensor]" = field(default_factory=dict, compare=False, repr=False)
    embeddings: "Tensor | None" = field(default=None, compare=False, repr=False)
    decoder: "Callable[[int], Mapping[str, Tensor]] | None" = field(default=None, compare=False, repr=False)
    probe: bool = False

    def mean_embedding(self) -> "Tensor":
        """Of all tokens, [hidden_size]; zeros where no model is known."""
        import torch

        return torch.zeros(self.hidden_size) if self.embeddings is None else self.embeddings.detach().float().mean(0)


FULL = (Band(),)
PROBE = LayerContext(layer_idx=0, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2, hidden_size=2, trained_window=2, probe=True)
