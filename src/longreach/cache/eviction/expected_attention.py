"""Expected attention: the tokens stay that queries to come will look at, as the queries so far let expect, by the length of their values.

Paper: Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution, 2025, arXiv:2510.00636
Cost: sums and products of all queries are kept up to the cut; a product of each key with a D x D matrix there. No attention is computed
again, so it goes with any kernel.
Limits: a question that is unlike the text before it is not foreseen; what is dropped is gone, whatever is asked later. Keys stay where they
stand, so that it reaches no further than the model.
Differs from the paper: all heads of a layer keep as many tokens (its adaptive budgets: +ada). Settings are those of the authors' code,
kvpress, where epsilon is 0 by default.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.eviction._scored import Scored
from longreach.core.bands import LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(Scored):
    """Args: budget: tokens that stay (>= 1), or a share of the prompt (below 1). every: 0: cut once, where the prompt ends; else whenever
    so many tokens are on top of the budget, within the prompt, too. num_sinks: first tokens, which stay and whose queries do not count
    (authors' code: 4). ahead: positions after the cut that queries are expected at (authors' code: 512). epsilon: added to a token's
    expected share before that is multiplied by the length of its value (authors' code: 0).
    """

    info: ClassVar = MethodInfo(
        title="Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
        paper="arXiv:2510.00636",
        forgets=True,
    )
    signals: ClassVar[tuple[Signal, ...]] = ("turned", "values", "queries")
    packed: ClassVar[bool] = False  # type: ignore[misc]  # the scores would hang on where keys were put before
    num_sinks: int = 4
    ahead: int = 512
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        Scored.__post_init__(self)
        at_least(self, 0, "num_sinks", "epsilon")
        at_least(self, 1, "ahead")
        if 1 <= self.budget < self.num_sinks:
            raise SpecError(
                f"expected_attention: num_sinks={self.num_sinks} must be at most budget={int(self.budget)}, which they are a part of"
            )

    @property
    def least(self) -> int:
        """The sinks."""
        return max(1, self.num_sinks)

    @property
    def skip(self) -> int:
        """The sinks."""
        return self.num_sinks

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """E exp(s q k) = exp(s mean k + s^2 / 2 k cov k) of normal queries, as a share of all, times the length of the value."""
        assert signals.turned is not None and signals.values is not None  # noqa: S101 - asked for
        assert signals.queries is not None and signals.turn is not None  # noqa: S101 - asked for
        keys, stay = signals.turned.double(), signals.index < self.num_sinks
        groups = signals.queries.mean.shape[1] // keys.shape[1]
        dim = keys.shape[-1]
        basis = torch.eye(dim, dtype=signals.turned.dtype, device=keys.device).repeat_interleave(self.ahead, 0)
        places = (signals.seen + torch.arange(self.ahead, device=keys.device)).repeat(dim)
        mean_turn = signals.turn(basis[None, None], places[None, None]).view(dim, self.ahead, -1).double().mean(1)
        mean = signals.queries.mean @ mean_turn
        covariance = mean_turn.mT @ signals.queries.covariance @ mean_turn
        keys = keys.repeat_interleave(groups, 1)
        logits = signals.scale * (keys @ mean[..., None])[..., 0]
        logits = logits + signals.scale**2 / 2 * ((keys @ covariance) * keys).sum(-1)
        share = logits.masked_fill((stay | (signals.index < 0)).repeat_interleave(groups, 1), float("-inf")).softmax(-1)
        share = share.unflatten(1, (-1, groups)).mean(2).nan_to_num()  # of a head that holds nothing but sinks there is no share
        return ((share + self.epsilon) * signals.values.double().norm(dim=-1)).masked_fill(stay, float("inf"))

    def worth(self, seen: int, history: History) -> Tensor:
        """Query head by query head, over the tokens that are held."""
        keys, dim = history.rotated(history.k, torch.arange(history.k.shape[1])), history.k.shape[-1]
        turns = [
            history.rotated(torch.eye(dim, dtype=keys.dtype)[:, None], torch.tensor([seen + step]))[:, 0] for step in range(self.ahead)
        ]
        turn, groups = torch.stack(turns).mean(0), len(history.q) // len(keys)
        worth = torch.full(keys.shape[:2], float("inf"), dtype=keys.dtype)
        for head, held in enumerate(history.held):
            free = [token for token in held if token >= self.num_sinks]
            if not free:
                continue
            shares = []
            for q in history.q[head * groups : (head + 1) * groups, self.num_sinks : seen]:
                mean, covariance = q.mean(0) @ turn, turn.T @ torch.cov(q.T, correction=0) @ turn
                logits = [history.scale * keys[head, t] @ mean for t in free]
                spreads = [history.scale**2 / 2 * keys[head, t] @ covariance @ keys[head, t] for t in free]
                shares.append(torch.stack([a + b for a, b in zip(logits, spreads, strict=True)]).softmax(0))
            worth[head, free] = (torch.stack(shares).mean(0) + self.epsilon) * history.v[head, free].norm(dim=-1)
        return worth


METHOD = ExpectedAttention
EXAMPLES = (
    ExpectedAttention(budget=10, ahead=8),
    ExpectedAttention(budget=0.4, num_sinks=2, ahead=3, epsilon=0.02),
    ExpectedAttention(budget=9, every=4, num_sinks=1, ahead=5),
)
STACKS = ("expected_attention:budget=10,ahead=4+ada",)
NEUTRAL = (ExpectedAttention(budget=64),)
BAD = (
    {"budget": 0},
    {"budget": 0.5, "every": 4},
    {"budget": 8, "num_sinks": -1},
    {"budget": 8, "num_sinks": 9},
    {"budget": 8, "ahead": 0},
    {"budget": 8, "epsilon": -1},
)
