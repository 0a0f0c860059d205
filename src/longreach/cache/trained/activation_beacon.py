"""Activation Beacon: beacons among the tokens of a window take up what these say, and are all that is kept of it.

Paper: Long Context Compression with Activation Beacon, 2024, arXiv:2401.03462
Cost: keys and values of a window and of one beacon for every `ratio` tokens before it; a token more for every `ratio`. Beacons have
projections and an embedding of their own, which have to be trained; the model itself stays as it is.
Limits: the cache grows by a token for every `ratio`; texts end where the beacons before a window and the window fill the trained one.
Differs from the paper: the ratio is a setting, the same for a whole text, where the paper draws one for every window in training; weights
do not hang on it, so training may change it from text to text. The embedding begins at the mean of all tokens', not at that of the
special token that ends texts, and beacons' projections are told as what they add to the model's. Of the window before, the last tokens are
dropped one by one as new ones come. In layers with a sliding window of their own nobody sees beacons.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from longreach.cache.trained.base import Inserts, Projections, Spot
from longreach.core.bands import Band, LayerContext, PositionMap
from longreach.core.errors import SpecError
from longreach.core.inserted import Inserted, InsertedRun
from longreach.core.memory import View
from longreach.core.method import Claim, MethodInfo, at_least

if TYPE_CHECKING:
    import numpy as np

_RATIOS = (2, 4, 8, 16, 32)
_PARTS = ("query", "key", "value")


@dataclass(frozen=True, slots=True)
class BehindBeacons(PositionMap):
    """Places of tokens behind the beacons of all windows before, and with those of their own window between them."""

    window: int
    ratio: int

    def __call__(self, t: Tensor) -> Tensor:
        """Whole positions."""
        place = t % self.window
        return t // self.window * (self.window // self.ratio) + place + place // self.ratio


@dataclass(frozen=True, kw_only=True)
class ActivationBeacon(Inserts):
    """Args: window_size: tokens that are seen as they are (paper: 2048). ratio: tokens to a beacon (paper: 2 to 32), a divisor of it."""

    info: ClassVar = MethodInfo(
        title="Long Context Compression with Activation Beacon",
        paper="arXiv:2401.03462",
        training_free=False,
        forgets=True,
        claims=(
            Claim(
                text="comparable to the model without compression, far beyond the length of training",
                metric="memory_rise_8x",
                condition="trained",
                times=8,
                at_most=0.05,
            ),
            Claim(
                text="needles are found in texts that are several times as long as the trained window",
                metric="memory_found_8x",
                condition="trained",
                times=8,
                at_least=0.85,
            ),
            Claim(text="the cache takes an eighth of the memory", metric="memory_cache_8x", condition="trained", times=8, at_most=0.125),
        ),
    )
    window_size: int = 2048
    ratio: int = 8

    def __post_init__(self) -> None:
        at_least(self, 1, "window_size", "ratio")
        if self.window_size % self.ratio:
            raise SpecError(f"activation_beacon: ratio={self.ratio} must divide window_size={self.window_size}")

    @property
    def beacons(self) -> int:
        """Of a window."""
        return self.window_size // self.ratio

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The query's own window, and beacons."""
        places = BehindBeacons(self.window_size, self.ratio)
        return (
            Band(queries=places, keys=places, chunk=self.window_size, hi=0),
            Inserted(reader=self, every=self.ratio, keys=places, reach=self.window_size - 1),
        )

    def weights(self, layer: LayerContext) -> dict[str, Tensor]:
        """`embedding` [1, hidden_size], and what beacons add to the projections [H or K * D, hidden_size]: nothing, at first."""
        heads = (layer.num_heads, layer.num_kv_heads, layer.num_kv_heads)
        own = {name: torch.zeros(count * layer.head_dim, layer.hidden_size) for name, count in zip(_PARTS, heads, strict=True)}
        return own | ({"embedding": layer.mean_embedding()[None]} if layer.first else {})

    def embeddings(self, layer: LayerContext) -> Tensor:
        """That of all beacons."""
        return layer.weights["activation_beacon.embedding"]

    def projected(self, hidden: Tensor, layer: LayerContext) -> Projections:
        """By the beacons' own projections."""
        query, key, value = (hidden @ layer.weights[f"activation_beacon.{name}"].mT for name in _PARTS)
        return query, key, value

    def drawn(self, rng: "np.random.Generator", length: int, trained_window: int) -> "ActivationBeacon":
        """One of the paper's ratios, of those under which the text fits the trained window."""
        before = (length - 1) // self.window_size * self.window_size
        fit = [
            ratio
            for ratio in _RATIOS
            if self.window_size % ratio == 0 and (before + self.window_size) // ratio + self.window_size <= trained_window
        ]
        return replace(self, ratio=int(rng.choice(fit))) if fit else self

    def training_length(self, trained_window: int) -> int:
        """Eight windows, of which all but the first stand behind beacons."""
        return 8 * self.window_size

    def pieces(self, run: InsertedRun) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Of beacons, the tokens of their window before them; of all queries, the beacons before, and a beacon itself."""
        tokens = (run.index + 1) * self.ratio - 1 if run.inserted else run.index  # the last of the text's that is seen
        window, count = tokens // self.window_size, run.q.shape[2]
        place = BehindBeacons(self.window_size, self.ratio)(tokens) + (1 if run.inserted else 0)
        q = run.turn(run.q, place)
        if run.inserted:
            index = run.oldest + torch.arange(run.keys.shape[2], device=q.device)
            seen = (index <= tokens[:, None]) & (index >= (window * self.window_size)[:, None])
            yield (slice(0, count), *run.attend(q, run.keys, run.values, _mask(seen, q)))
        number = torch.arange(run.own_keys.shape[2], device=q.device)
        earlier = number < (window * self.beacons)[:, None]
        if bool(earlier.any()):
            kept = run.turn(run.own_keys, number)
            yield (slice(0, count), *run.attend(q, kept, run.own_values, _mask(earlier, q)))
        last = run.index if run.inserted else tokens // self.ratio - 1
        among = ~earlier & (number <= last[:, None])
        if bool(among.any()):
            first = int(window[0]) * self.beacons
            here = run.turn(run.own_keys[:, :, first:], self._among(number[first:]))
            yield (slice(0, count), *run.attend(q, here, run.own_values[:, :, first:], _mask(among[:, first:], q)))

    def _among(self, number: Tensor) -> Tensor:
        """Where beacons stand among the tokens of their own window."""
        return number // self.beacons * self.beacons + (number % self.beacons + 1) * (self.ratio + 1) - 1

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Every token stands behind the beacons before its window; of those before, what their beacons say is seen."""
        places = BehindBeacons(self.window_size, self.ratio)
        own = j // self.window_size == i // self.window_size
        return places(i) - torch.where(own, places(j), j // self.ratio), j <= i

    def given(
        self, query: Spot, spots: Sequence[Spot], logit: Callable[[Sequence[Any]], Tensor], layer: LayerContext
    ) -> tuple[Tensor, Tensor]:
        """One softmax over the window's tokens and all beacons."""
        window = self._window(query)
        place = self._place(query)
        before, seen = [], []
        for spot in spots:
            own = self._window(spot) == window
            before.append(place - (self._place(spot) if own else spot.index))
            seen.append(own or spot.inserted)
        logits = logit(before).masked_fill(~torch.tensor(seen), float("-inf"))
        return logits.softmax(-1), logits.logsumexp(-1)

    def _window(self, spot: Spot) -> int:
        return spot.index // (self.beacons if spot.inserted else self.window_size)

    def _place(self, spot: Spot) -> int:
        """Position in its own window."""
        window = self._window(spot)
        if spot.inserted:
            return window * self.beacons + (spot.index - window * self.beacons + 1) * (self.ratio + 1) - 1
        place = spot.index - window * self.window_size
        return window * self.beacons + place + place // self.ratio


def _mask(seen: Tensor, q: Tensor) -> Tensor:
    """[T, S] as a mask of every row."""
    return seen.expand(q.shape[0], 1, -1, -1)


METHOD = ActivationBeacon
EXAMPLES = (
    ActivationBeacon(window_size=12, ratio=3),
    ActivationBeacon(window_size=8, ratio=8),
    ActivationBeacon(window_size=6, ratio=1),
)
NEUTRAL = (ActivationBeacon(window_size=64, ratio=64),)
BAD = ({"window_size": 0}, {"ratio": 0}, {"window_size": 10, "ratio": 4})
