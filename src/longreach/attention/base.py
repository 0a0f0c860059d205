"""The contracts of attention methods: what a query sees (bands, chosen chunks), what becomes of logits, an encoder's temperature, how a
padded batch is laid out, which parts of a text are read side by side, and how an encoder-decoder reads beyond its encoder's window.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from longreach.core.bands import PROBE, Band, LayerContext
from longreach.core.memory import View
from longreach.core.method import Method, MethodInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class Vectors:
    """What a definition may look at, of one layer and row: q [H, T, D], k and v [H, T, D], float64, unrotated; the scale of logits, and
    their soft cap.

    prompt: tokens of the row's prompt. rotated: (x [..., T, D], positions [T]) -> x rotated to these positions.
    """

    layer: LayerContext
    q: Tensor
    k: Tensor
    v: Tensor
    scale: float
    prompt: int
    rotated: Callable[[Tensor, Tensor], Tensor]
    softcap: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionPolicy(Method):
    """Base of attention policies. What a policy does, its class says by deriving from some of the classes below, each with one hook.

    `reference` states per pair what the engine is to compute, and the tests hold one to the other.
    """

    kind: ClassVar[str] = "attention"

    def views(self, layer: LayerContext) -> tuple[View, ...] | None:
        """What a query sees; None leaves that to the other methods of the stack."""
        return None

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """The definition of a method that decides by content, per head ([H, T, T] each), or by layer; `reference` is the farthest then."""
        return self.reference(i, j)

    def counted(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor | None:
        """The definition of a method whose softmax counts some keys more than once: how often, [H, T, T]. None: each that is seen once."""
        return None

    def keys_read(self, i: Tensor) -> Tensor | None:
        """How many keys, or what stands for several, queries with the indices `i` [n] are compared with in a layer, on average over its
        heads, [n]; for methods with a `Computed` view. None: it is not known.
        """
        return None

    def masses(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor | None:
        """The definition of a method whose weights are no softmax over the keys that it sees: what each value weighs, [H, T, T].

        The weights of a query are its masses over their sum, to which learned sinks add the exponentials of their logits. None: the
        exponentials of the logits of what `reference_of` sees.
        """
        return None

    def outputs(self, i: Tensor, j: Tensor, vectors: Vectors) -> Tensor | None:
        """The definition of a method whose outputs are no sums of values by their weights: what comes out, [H, T, D].

        Learned sinks take weight of it as beside a softmax whose log-sum-exp is 0. Padding (j below 0) must have no part in it, and what
        queries that are padding get does not count. None: values by their masses.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class Places(AttentionPolicy):
    """Decides what a query sees, and at which positions.

    interpolates_logits: at a broken relative position, `reference` means the logits of the two whole ones around, interpolated.
    """

    interpolates_logits: ClassVar[bool] = False

    @abstractmethod
    def bands(self, layer: LayerContext) -> tuple[View, ...]:
        """The bands and selections of a layer, pairwise disjoint."""

    def views(self, layer: LayerContext) -> tuple[View, ...]:
        """The bands."""
        return self.bands(layer)


@dataclass(frozen=True, kw_only=True)
class FollowsLength(Places):
    """Places tokens anew as the text grows; declares `length_dependent`. `bands` are those of a short text."""

    @abstractmethod
    def text_length(self, t: Tensor, layer: LayerContext) -> Tensor:
        """The length that the bands of queries at the indices `t` are for (same shape)."""

    @abstractmethod
    def bands_at(self, layer: LayerContext, length: int) -> tuple[View, ...]:
        """The bands of a layer for queries of that length."""


@dataclass(frozen=True, kw_only=True)
class ReadsText(Places):
    """Places tokens by the text that they stand for; declares `reads_text`, and so gets the tokenizer."""

    @abstractmethod
    def read(self, state: tuple[int, ...] | None, text: str, trained_window: int) -> tuple[int, ...]:
        """The state after one more token, which stands for `text`; None before the first one.

        It begins with the number of the token's block and its place in that block, and what comes later changes neither.
        """

    @abstractmethod
    def reference_by_text(self, i: Tensor, j: Tensor, texts: Sequence[str], pairs: int, trained_window: int) -> tuple[Tensor, Tensor]:
        """The definition: relative positions for each pair of dimensions [T, T, pairs], and visible.

        texts: what the token at each index stands for; indices below 0 are padding.
        """


@dataclass(frozen=True, kw_only=True)
class Scales(AttentionPolicy):
    """Multiplies the logits of a query."""

    @abstractmethod
    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor:
        """Factor on the logits of queries that `t` [B, T] tokens come before, float32: [B, T], or [B, H, T] by head."""


@dataclass(frozen=True, kw_only=True)
class Biases(AttentionPolicy):
    """Adds to logits by distance."""

    @abstractmethod
    def bias(self, distance: Tensor, layer: LayerContext) -> Tensor:
        """Added to the logits of pairs that are `distance` >= 0 apart (any shape, float or int): [H, *distance.shape].

        The distance is the one that the bands give the rotary embedding. A soft cap on logits acts before it.
        """


@dataclass(frozen=True, kw_only=True)
class Ages(AttentionPolicy):
    """Lets every token age what came before it."""

    @abstractmethod
    def aging(self, hidden: Tensor, layer: LayerContext) -> Tensor:
        """By how much each token ages those before it, [B, H, T] float32, of the layer's input [B, T, hidden_size].

        The sum over the tokens after a key, up to and with the query, is subtracted from their logit.
        """


@dataclass(frozen=True, kw_only=True)
class Prefixes(AttentionPolicy):
    """Lets queries see something besides the text."""

    @abstractmethod
    def prefix(self, q: Tensor, layer: LayerContext) -> tuple[Tensor, Tensor]:
        """What queries q [B, H, T, D] (as the bands first rotate them) see besides the text.

        (Sum of values, each times the exponential of its logit, [B, H, T, D]; sum of these exponentials [B, H, T]), float32.
        """


@dataclass(frozen=True, kw_only=True)
class Fades(AttentionPolicy):
    """Lets pairs of dimensions fade with the distance."""

    @abstractmethod
    def decay(self, pairs: int, layer: LayerContext) -> Tensor:
        """What each of the `pairs` of rotated dimensions loses a token of distance: a factor up to 1, [pairs] float32.

        Positions have to stay small under it: keys are divided by what queries are multiplied by.
        """


@dataclass(frozen=True, kw_only=True)
class Follows(AttentionPolicy):
    """Has weights of its own that no gradient moves: they follow what is read in training, as what it computes notes it."""

    weights_alone: ClassVar[bool] = False

    @abstractmethod
    def follow(self, layer: LayerContext) -> None:
        """Move them, in place, after a step of training."""


class Sees(Protocol):
    """An attention or cache policy."""

    info: ClassVar[MethodInfo]

    def views(self, layer: LayerContext) -> tuple[View, ...] | None:
        """What a query sees."""


def goes_by_text(policy: Sees) -> bool:
    """Whether what a token sees depends on more than positions: on the text, its length, or the content of keys."""
    chooses = any(not isinstance(view, Band) for view in policy.views(PROBE) or ())
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


@dataclass(frozen=True, kw_only=True)
class EncoderMemory(Method):
    """Lets an encoder read its text bit by bit: each query sees what a memory of keys holds at the time when it attends."""

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def steps(self, length: int) -> list[tuple[range, range]]:
        """Of a text of `length` tokens, padding not counted: queries that attend together, and the keys that they see; each query once."""

    @abstractmethod
    def sees(self, i: Tensor, j: Tensor, length: int) -> Tensor:
        """The definition: whether queries `i` see keys `j` (indices, broadcast) in a text of `length` tokens."""


@dataclass(frozen=True, kw_only=True)
class Packs(Method):
    """Lays out the real tokens of a padded batch in rows of its own, behind one another. Each text still sees itself alone."""

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def rows(self, lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The numbers of the texts in each row, every text in one of them, by their `lengths` in tokens (>= 1)."""


@dataclass(frozen=True, kw_only=True)
class ReadsSets(Method):
    """Has parts of a text read side by side: none sees another, all begin at one position, and the text goes on after the longest."""

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def parts(self, text: str) -> tuple[str | tuple[str, ...], ...]:
        """A text in its order: what is read as it stands, and sets of what is read side by side.

        Raises: InputError for a text that is marked wrongly.
        """


@dataclass(frozen=True, kw_only=True)
class Chunks(Method):
    """Has exact attention computed a few queries and keys at a time."""

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def sizes(self) -> tuple[int, int]:
        """How many queries, and how many keys, meet at a time (>= 1)."""


@dataclass(frozen=True, kw_only=True)
class CrossRetrieval(Method):
    """Has an encoder read a long text in pieces, and each head of the decoder's cross-attention see the keys of all of them that are
    nearest to its query.
    """

    kind: ClassVar[str] = "attention"

    @abstractmethod
    def pieces(self, length: int, window: int) -> tuple[tuple[int, int, int, int], ...]:
        """How a text of `length` > `window` tokens is read: (begin, end, begin of what is kept, end of what is kept) of each piece.

        A piece has `window` tokens at most. What is kept of one begins where what is kept of the piece before it ends.
        """

    @abstractmethod
    def keys_seen(self, window: int) -> int:
        """How many keys a query of a head sees of a text that is longer than the window (>= 1)."""

    def stated_window(self) -> int | None:
        """The encoder's window in tokens, where the settings state one; None leaves it to the model."""
        return None
