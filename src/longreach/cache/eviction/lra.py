"""LRA: the least recently attended tokens go, which for longest no query had among the `top_k` keys that it weighted most.

Paper: Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing, 2024,
arXiv:2401.04881
Cost: attention weights are computed twice more, to find which keys are among the first of a query, and to note it there.
Limits: what no query needed for a while is gone, whatever is asked later; at its own positions it reaches no further than the model, packed
it does.
Differs from the paper: only its abstract could be had, and no code. A query attends to all of the memory, where the paper's queries
retrieve keys from it; the `top_k` keys that got the most attention of a query of a head stand for what it would have retrieved, and how
many that is in the paper is not known here. A token that no query attended to counts as attended when it came. Heads that share keys share
what is kept. A chunk is `slack` tokens on a grid of the text. Ages count to ten binary digits, and of equal ones the later token stays.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.cache.eviction._memory import AttendedMemory
from longreach.core.bands import LayerContext
from longreach.core.memory import Signals
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class LRA(AttendedMemory):
    """Args: budget: tokens that stay (>= 1). slack: tokens that may come on top before some have to go. top_k: keys of a query that count
    as attended to. packed: keys stand at places in the cache, so that it reads on beyond the window.
    """

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """How many tokens ago each was attended to, below 0."""
        assert signals.last is not None  # noqa: S101 - asked for
        return (torch.maximum(signals.last, signals.index) - signals.seen).float()

    def worth(self, seen: int, history: History) -> Tensor:
        """The last query that attended to it, or the token itself, counted back from the cut."""
        tokens, queries = torch.arange(history.k.shape[1]), torch.arange(seen)[:, None]
        last = torch.where(self.attended(seen, history), queries, -1).amax((1, 2)) if seen else tokens
        return (torch.maximum(last, tokens) - seen).double()


METHOD = LRA
EXAMPLES = (LRA(budget=12, slack=4, top_k=2), LRA(budget=7, slack=2, top_k=1), LRA(budget=9, slack=5, top_k=3, packed=True))
NEUTRAL = (LRA(budget=64),)
BAD = ({"budget": 0}, {"budget": 8, "slack": 0}, {"budget": 8, "top_k": 0})
