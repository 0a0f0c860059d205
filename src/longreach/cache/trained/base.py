"""The contracts of caches that a model is trained to use in a way of its own."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import LayerContext
from longreach.core.inserted import Inserted
from longreach.core.memory import View

if TYPE_CHECKING:
    import numpy as np

Projections = tuple[Tensor, Tensor, Tensor]
# (embeddings [N, L, hidden_size], layers, weights) -> states [N, L, hidden_size]: N texts, each read alone from position 0 on by the
# model's decoder, cut off after so many layers, with its last norm behind them; weights: in the place of its own, by their names in it.
ReadAside = Callable[[Tensor, int, Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A token of a row as the model reads it: number `index` of the text's own tokens, or of the inserted ones."""

    index: int
    inserted: bool = False


@dataclass(frozen=True, kw_only=True)
class Inserts(CachePolicy):
    """Puts tokens of its own behind every so many tokens of the text; `stores` has one `Inserted` (core/inserted.py), which says where.

    Their embeddings are weights of its own, and attention is computed by the policy, which is the reader of its `Inserted`. In a layer with
    a sliding window of its own an inserted token sees what the text's token before it sees, and nobody sees it.
    """

    @abstractmethod
    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """Bands over the text for the text's own queries, and the `Inserted`."""

    @abstractmethod
    def embeddings(self, layer: LayerContext) -> Tensor | None:
        """What inserted tokens are to the first layer, [count, hidden_size]; layer: the first one with full attention. None: they are made
        of the text, by a policy that `Condenses` it.
        """

    def projected(self, hidden: Tensor, layer: LayerContext) -> Projections | None:
        """What is added to the queries [B, M, H * D], keys and values [B, M, K * D] of inserted tokens; None: nothing.

        hidden: [B, M, hidden_size], the attention layer's input.
        """
        return None

    @abstractmethod
    def given(
        self, query: Spot, spots: Sequence[Spot], logit: Callable[[Sequence[Any]], Tensor], layer: LayerContext
    ) -> tuple[Tensor, Tensor]:
        """The definition, in float64: how much a query gives each of `spots`, [H, N], and the logarithm [H] of what these weigh together.

        spots: all tokens up to the query, itself included, in the order in which they are read. logit: how far before the query each of
        them stands, N numbers or, by head, [H, N] -> logits [H, N].
        """

    def drawn(self, rng: "np.random.Generator", length: int, trained_window: int) -> Self:
        """The settings that a step of training on texts of so many tokens is done under: these."""
        return self

    def training_length(self, trained_window: int) -> int:
        """Tokens of a text in training, where nothing else is asked for."""
        return trained_window

    def inserted(self, layer: LayerContext) -> Inserted:
        """Where they stand."""
        return next(view for view in self.stores(layer) if isinstance(view, Inserted))


@dataclass(frozen=True, kw_only=True)
class Condenses(Inserts):
    """Makes the tokens that it inserts of the chunk of the text that they stand behind, whose tokens are kept until it is full."""

    def embeddings(self, layer: LayerContext) -> None:
        """Made of the text."""

    @abstractmethod
    def condensed(self, chunks: Tensor, read: ReadAside, layer: LayerContext) -> Tensor:
        """What inserted tokens are to the first layer, [N, count, hidden_size], of N chunks of the text.

        Args: chunks: [N, every, hidden_size], what their tokens are to the first layer. read: the model's first layers, under other
        weights. layer: the first one with full attention.
        """


@dataclass(frozen=True, kw_only=True)
class AmongTexts(CachePolicy):
    """A policy whose model is trained among texts: queries also meet keys of other texts of the batch, in the bands that are `shared`.

    Nothing but training differs by that: a trained model reads each text by itself.
    """

    @abstractmethod
    def texts_at(self, progress: float) -> int:
        """Texts whose keys a query meets in training, its own included. Args: progress: the share of the steps that are done, [0, 1)."""


@dataclass(frozen=True, kw_only=True)
class Recurrent(CachePolicy):
    """A policy that carries something on from window to window."""

    @property
    @abstractmethod
    def feeds_back(self) -> bool:
        """Whether what is carried hangs on what was carried before: then rounding may grow with the text, as in any recurrence."""
