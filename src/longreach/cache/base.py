"""The contracts of cache policies: which tokens are kept, in which form, and at which positions they are seen."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.core.bands import PROBE, Band, LayerContext
from longreach.core.memory import Cut, Kept, Over, Signal, Signals, View
from longreach.core.method import Method

_DIGITS = 10  # binary digits of a score that count


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What one query sees, by the definition of a policy: for tests.

    Args: tokens: indices that each key-value head sees. relative: [K, T] how far away each token stands; None: where it is. keys, values:
    [K, T, D] what the query sees in place of them, keys rotated; None: themselves.
    """

    tokens: Sequence[Sequence[int]]
    relative: Tensor | None = None
    keys: Tensor | None = None
    values: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What a definition may look at before query `i`, of one row in float64.

    Args: layer: that it is of. prompt: tokens of the row's prompt. attention: [H, i, T] weights of all earlier queries. q: [H, T, D], k, v:
    [K, T, D], unrotated. rotated: (x [..., T, D], positions [T]) -> x at these positions.
    """

    layer: LayerContext
    prompt: int
    attention: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    rotated: Callable[[Tensor, Tensor], Tensor]

    def by_kv_head(self) -> Tensor:
        """The attention summed over the query heads of each key-value head, [K, i, T]."""
        heads, queries, tokens = self.attention.shape
        return self.attention.view(len(self.k), heads // len(self.k), queries, tokens).sum(1)


@dataclass(frozen=True, kw_only=True)
class CachePolicy(Method):
    """What is kept. Without a policy the engine keeps what the bands can still reach; `keep_all` keeps everything.

    rounds: it rounds numbers, so that two ways to compute the same differ by more than their own rounding.
    """

    kind: ClassVar[str] = "cache"
    keep_all: ClassVar[bool] = False
    rounds: ClassVar[bool] = False

    def stores(self, layer: LayerContext) -> tuple[View, ...] | None:
        """The parts of a layer's memory; None leaves the choice to an attention policy."""
        return None

    def views(self, layer: LayerContext) -> tuple[View, ...] | None:
        """What a query sees: the stores."""
        return self.stores(layer)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i

    def sight(self, i: int, history: History) -> Sight | None:
        """The definition of a policy that decides by content: what query `i` sees. None: `reference` says it."""
        return None


@dataclass(frozen=True, kw_only=True)
class Eviction(CachePolicy):
    """Keeps a budget of tokens in each key-value head, those with the highest scores; of equal ones the later.

    signals: what scores are made of. packed: keys stand at places in the cache.
    """

    signals: ClassVar[tuple[Signal, ...]]
    packed: bool = False

    @property
    def observe(self) -> int:
        """Queries whose attention `observed` adds up."""
        return 0

    @abstractmethod
    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """How much each token is worth, [B, K, n]; infinite where it has to stay."""

    @abstractmethod
    def worth(self, seen: int, history: History) -> Tensor:
        """The definition of the score at a cut before the token `seen`, [K, T]; of tokens from that on it may be anything."""

    @abstractmethod
    def tokens(self, layer: LayerContext) -> int:
        """The budget of a layer: tokens that stay at a cut."""

    def cut(self, layer: LayerContext) -> Cut:
        """With every token once the budget is spent."""
        return Over(self.tokens(layer))

    def keep(self, signals: Signals, layer: LayerContext) -> Tensor:
        """The highest scores."""
        return highest(self.score(signals, layer), signals.index, self.tokens(layer))

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """What is kept, and all that came since."""
        kept = Kept(keeper=self, cut=self.cut(layer), signals=self.signals, observe=self.observe, packed=self.packed)
        return (kept, Band())

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The farthest that a key can stand: where it is, or packed as many places away as are held."""
        held = self.tokens(PROBE)
        slack = self.cut(PROBE).before(0, 2 * held + 1, 0)
        return (i - j).clamp(max=(slack[0] if slack else held) - 1) if self.packed else i - j, j <= i

    def sight(self, i: int, history: History) -> Sight:
        """The definition, token by token."""
        held: list[list[int]] = [[] for _ in history.k]
        relative = (i - torch.arange(history.k.shape[1])).repeat(len(history.k), 1)
        for seen in range(i + 1):
            cut = self.cut(history.layer).before(seen, seen + 1, history.prompt)
            values = coarse(self.worth(seen, history)).tolist() if cut else ()
            for head, worths in enumerate(values):
                ranked = sorted(((worths[token], token) for token in held[head]), reverse=True)
                held[head] = sorted(token for _, token in ranked[: self.tokens(history.layer)])
                if self.packed:
                    for place, token in enumerate(held[head]):
                        relative[head, token] = i - (seen - len(held[head]) + place)
            for tokens in held:
                tokens.append(seen)
        return Sight(tokens=held, relative=relative)


def coarse(score: Tensor) -> Tensor:
    """Scores to so many binary digits: what is equal but for rounding is equal, in every way to compute it."""
    mantissa, exponent = torch.frexp(score)
    return torch.ldexp((mantissa * 2**_DIGITS).round() / 2**_DIGITS, exponent)


def highest(score: Tensor, index: Tensor, count: int) -> Tensor:
    """Where the `count` highest of the scores [..., n] are, bool; of equal ones the later tokens. index: below 0 where there is none."""
    score = coarse(score).masked_fill(index < 0, float("-inf"))
    order = index.sort(dim=-1, descending=True, stable=True).indices
    order = order.gather(-1, score.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices)
    best = torch.zeros_like(index, dtype=torch.bool)
    return best.scatter(-1, order[..., :count], True) & (index >= 0)
