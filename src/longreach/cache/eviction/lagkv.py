"""LagKV: of every partition of the text a share stays, the tokens whose keys and values stand out beside those of the next partition.

Paper: LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important, 2025, arXiv:2504.04704
Cost: minima and maxima of a partition at a cut; no attention is computed again, so it goes with any kernel.
Limits: memory grows with the text, by the share that stays. A score that asks nothing of the queries; what it drops is gone, whatever is
asked later.
Differs from the paper: of tokens whose scores are equal to 10 binary digits the later stay. A dimension that is the same all over the next
partition counts as 0, where the official code divides by 0. A prompt is read under it, partition by partition, as in the official code's
evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Kept, Signals, View
from longreach.core.method import MethodInfo, at_least
from longreach.core.ranking import coarse, highest
from longreach.core.sight import History, Sight


@dataclass(frozen=True, slots=True)
class Lagging:
    """A cut whenever a partition is full that has a full one before it; `first`: tokens before the first partition."""

    waits: ClassVar[bool] = False
    first: int
    tokens: int

    def before(self, begin: int, end: int, prompt: int) -> list[int]:
        """first + 2 tokens, first + 3 tokens, ..."""
        full = max(2, -(-(begin - self.first) // self.tokens))
        return list(range(self.first + full * self.tokens, end, self.tokens))

    def over(self, seen: int, prompt: int) -> bool:
        """Never."""
        return False


@dataclass(frozen=True, kw_only=True)
class LagKV(CachePolicy):
    """Args: ratio: share of each partition that stays (above 0, at most 1). num_sinks: first tokens, which all stay (official code: 16).
    lag: tokens of a partition (>= 2; official code: 1024, paper: 128 and more). value_weight: of the values' score beside the keys'
    (official code: 1).
    """

    info: ClassVar = MethodInfo(
        title="LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important", paper="arXiv:2504.04704", forgets=True
    )
    ratio: float
    num_sinks: int = 16
    lag: int = 128
    value_weight: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, 0, "ratio", "num_sinks", "value_weight")
        at_least(self, 2, "lag")
        if not 0 < self.ratio <= 1 or not self._stays:
            raise SpecError(f"lagkv: ratio={self.ratio:g} must be at most 1 and leave something of a partition of lag={self.lag} tokens")

    @property
    def _stays(self) -> int:
        """Tokens of a partition, as the official code rounds them."""
        return int(self.ratio * self.lag)

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """What is left of all partitions but the last full one, and all that came since."""
        return (Kept(keeper=self, cut=Lagging(self.num_sinks, self.lag), signals=("turned", "values")), Band())

    def keep(self, signals: Signals, layer: LayerContext) -> Tensor:
        """All but what goes of the last full partition but one."""
        assert signals.turned is not None  # noqa: S101 - asked for
        assert signals.values is not None  # noqa: S101 - asked for
        end = signals.index.shape[2] - self.lag
        scored, index = slice(end - self.lag, end), signals.index
        score = self._score(signals.turned.float(), scored) + self.value_weight * self._score(signals.values.float(), scored)
        keep = torch.ones_like(index, dtype=torch.bool)
        keep[:, :, scored] = highest(score, index[:, :, scored], self._stays)
        return keep

    def _score(self, x: Tensor, scored: slice) -> Tensor:
        """[B, K, lag] of x [B, K, n, D]: how unevenly a token's dimensions lie in the range of the partition after it."""
        after = x[:, :, scored.stop :]
        low, high = after.amin(2, keepdim=True), after.amax(2, keepdim=True)
        placed = (x[:, :, scored] - low) / (high - low)
        return placed.masked_fill(high == low, 0).std(-1).softmax(-1)

    def sight(self, i: int, history: History) -> Sight:
        """The definition, partition by partition."""
        keys = history.rotated(history.k, torch.arange(history.k.shape[1]))
        gone: list[set[int]] = [set() for _ in history.k]
        for cut in range(self.num_sinks + 2 * self.lag, i + 1, self.lag):
            begin, middle = cut - 2 * self.lag, cut - self.lag
            if cut not in history.worths:
                sides = [self._naive(x, begin, middle, cut) for x in (keys, history.v)]
                history.worths[cut] = coarse(sides[0] + self.value_weight * sides[1]).tolist()
            for head, worth in enumerate(history.worths[cut]):
                ranked = sorted(zip(worth, range(begin, middle), strict=True), reverse=True)
                gone[head] |= {token for _, token in ranked[self._stays :]}
        tokens: Sequence[Sequence[int]] = [[token for token in range(i + 1) if token not in dropped] for dropped in gone]
        return Sight(tokens=tokens)

    def _naive(self, x: Tensor, begin: int, middle: int, end: int) -> Tensor:
        """[K, lag] scores of the partition from `begin`, beside that from `middle`."""
        scores = []
        for head in x:
            low, high = head[middle:end].min(0).values, head[middle:end].max(0).values
            placed = [torch.where(high > low, (head[token] - low) / (high - low), 0.0) for token in range(begin, middle)]
            spread = torch.stack([one.var().sqrt() for one in placed])
            scores.append(spread.exp() / spread.exp().sum())
        return torch.stack(scores)


METHOD = LagKV
EXAMPLES = (
    LagKV(ratio=0.5, num_sinks=2, lag=6),
    LagKV(ratio=0.25, num_sinks=0, lag=4, value_weight=0.5),
    LagKV(ratio=0.4, num_sinks=5, lag=5, value_weight=0),
)
NEUTRAL = (LagKV(ratio=1), LagKV(ratio=0.1, lag=64))
BAD = ({"ratio": 0}, {"ratio": 1.5}, {"ratio": 0.1, "lag": 4}, {"ratio": 0.5, "lag": 1}, {"ratio": 0.5, "num_sinks": -1})
