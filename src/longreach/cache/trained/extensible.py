"""Extensible Tokenization: a copy of the model's first layers turns each full chunk of the text into a few embeddings, which stand for it.

Paper: Flexibly Scaling Large Language Models' Contexts Through Extensible Tokenization, 2024, arXiv:2401.07793
Cost: keys and values of a chunk, and of one token for every `ratio` before it; a chunk that is full is read once more by `layers` layers,
whose weights are the method's own, and are trained. The model itself stays as it is.
Limits: chunk_size + (trained - chunk_size) * ratio tokens, and what of the next chunk still fits the trained window. Beyond that positions
go on past the trained ones, which the model reads as badly as it does without the method. The cache grows by a token for every `ratio`.
Before training, embeddings are states of a layer, which the model cannot read.
Differs from the paper: written from the paper, without its code. A chunk is condensed as soon as it is full, where the paper's sessions end
when the window is; the last chunk is `chunk_size` tokens at most. Behind the last layer that is kept stands the model's last norm, which is
trained, too. One ratio is drawn for each step of training, not for each text. In layers with a sliding window of their own nobody sees the
embeddings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from longreach.cache.trained.base import Condenses, ReadAside, Spot
from longreach.core.bands import Band, LayerContext, PositionMap
from longreach.core.errors import SpecError
from longreach.core.inserted import Inserted, InsertedRun
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

if TYPE_CHECKING:
    import numpy as np

_RATIOS = (2, 4, 8, 16, 32)
_SHARE = 4  # of the model's layers, one in so many


@dataclass(frozen=True, slots=True)
class BehindChunks(PositionMap):
    """Places of tokens behind the embeddings of all chunks before their own."""

    chunk: int
    count: int

    def __call__(self, t: Tensor) -> Tensor:
        """Whole positions."""
        return t // self.chunk * self.count + t % self.chunk


@dataclass(frozen=True, kw_only=True)
class Extensible(Condenses):
    """Args: chunk_size: tokens that are read as they are, and then condensed (paper: 512 in training, 4096 after it). ratio: of them to an
    embedding (paper: 2 to 32), a divisor of it. layers: of the model that condense them; none: a quarter, as in the paper.
    """

    info: ClassVar = MethodInfo(
        title="Flexibly Scaling Large Language Models' Contexts Through Extensible Tokenization",
        paper="arXiv:2401.07793",
        training_free=False,
        forgets=True,
        claims=(
            Claim(
                text="LLaMA-2-7B at a ratio of 16: perplexity of PG-19 falls up to 8 windows (7.75 to 7.31), and is below the model's own "
                "inside its window (7.77)",
                metric="memory_rise_8x",
                condition="trained",
                times=8,
                at_most=0.0,
            ),
        ),
    )
    chunk_size: int = 512
    ratio: int = 8
    layers: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "chunk_size", "ratio", "layers")
        if self.chunk_size % self.ratio:
            raise SpecError(f"extensible: ratio={self.ratio} must divide chunk_size={self.chunk_size}")

    @property
    def count(self) -> int:
        """Embeddings of a chunk."""
        return self.chunk_size // self.ratio

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's own chunk, and embeddings of those before."""
        places = BehindChunks(self.chunk_size, self.count)
        return (
            Band(queries=places, keys=places, chunk=self.chunk_size, hi=0),
            Inserted(reader=self, every=self.chunk_size, count=self.count, keys=places, reach=0),
        )

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """Those of the model's first layers and of its last norm, from which they begin."""
        layers = self._layers(layer)
        if not layer.first or layer.decoder is None:
            return {}
        made = {name.replace(".", "/"): value for name, value in layer.decoder(layers).items()}
        if self._own(layer).keys() - made.keys():
            raise SpecError(f"extensible: layers={layers}: the model has weights for more; give as many as it was trained with")
        return made

    def _own(self, layer: LayerContext) -> dict[str, Tensor]:
        """The weights that the model has, by the names that `weights` gives them."""
        begin = "extensible."
        return {name.removeprefix(begin): value for name, value in layer.weights.items() if name.startswith(begin)}

    def _layers(self, layer: LayerContext) -> int:
        if self.layers is not None and self.layers > layer.num_layers and not layer.probe:
            raise SpecError(f"extensible: layers={self.layers}: the model has {layer.num_layers}")
        return max(1, layer.num_layers // _SHARE) if self.layers is None else self.layers

    def condensed(self, chunks: Tensor, read: ReadAside, layer: LayerContext) -> Tensor:
        """The last state of every `ratio`."""
        own = {name.replace("/", "."): value for name, value in self._own(layer).items()}
        return read(chunks, self._layers(layer), own)[:, self.ratio - 1 :: self.ratio]

    def drawn(self, rng: "np.random.Generator", length: int, trained_window: int) -> "Extensible":
        """One of the paper's ratios, of those under which the text fits the trained window."""
        before = (length - 1) // self.chunk_size * self.chunk_size
        fit = [ratio for ratio in _RATIOS if self.chunk_size % ratio == 0 and before // ratio + self.chunk_size <= trained_window]
        return replace(self, ratio=int(rng.choice(fit))) if fit else self

    def training_length(self, trained_window: int) -> int:
        """Eight chunks, of which all but the first stand behind embeddings."""
        return 8 * self.chunk_size

    def pieces(self, run: InsertedRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of the text's queries, the embeddings of the chunks before; of embeddings, those up to themselves."""
        count = run.q.shape[2]
        if run.inserted:
            place, seen = run.index, run.index + 1
        else:
            place = BehindChunks(self.chunk_size, self.count)(run.index)
            seen = run.index // self.chunk_size * self.count
        number = torch.arange(int(seen[-1]), device=run.q.device)
        if len(number):
            keys, values = run.turn(run.own_keys[:, :, : len(number)], number), run.own_values[:, :, : len(number)]
            mask = (number < seen[:, None]).expand(run.q.shape[0], 1, -1, -1)
            yield (slice(0, count), *run.attend(run.turn(run.q, place), keys, values, mask))

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Every token stands behind the embeddings before its chunk; of chunks before, what these say is seen."""
        places = BehindChunks(self.chunk_size, self.count)
        own = j // self.chunk_size == i // self.chunk_size
        return places(i) - torch.where(own, places(j), j // self.ratio), j <= i

    def given(
        self, query: Spot, spots: Sequence[Spot], logit: Callable[[Sequence[Any]], Tensor], layer: LayerContext
    ) -> tuple[Tensor, Tensor]:
        """One softmax over the embeddings, and over the tokens of the query's own chunk, which an embedding has none of."""
        own = None if query.inserted else query.index // self.chunk_size
        before, seen = [], []
        for spot in spots:
            before.append(self._place(query) - self._place(spot))
            seen.append(spot.inserted or spot.index // self.chunk_size == own)
        logits = logit(before).masked_fill(~torch.tensor(seen), float("-inf"))
        return logits.softmax(-1), logits.logsumexp(-1)

    def _place(self, spot: Spot) -> int:
        if spot.inserted:
            return spot.index
        chunk, place = divmod(spot.index, self.chunk_size)
        return chunk * self.count + place


METHOD = Extensible
EXAMPLES = (
    Extensible(chunk_size=12, ratio=3, layers=2),
    Extensible(chunk_size=8, ratio=8),
    Extensible(chunk_size=6, ratio=1, layers=1),
)
NEUTRAL = (Extensible(chunk_size=64, ratio=8),)
BAD = ({"chunk_size": 0}, {"ratio": 0}, {"layers": 0}, {"chunk_size": 10, "ratio": 4})
