"""FIFO: a memory of the last tokens; whenever a chunk has come on top, the oldest go.

Paper: Attendre: Wait To Attend By Retrieval With Evicted Queries in Memory-Based Transformers for Long Context Processing, 2024,
arXiv:2401.04881
Cost: nothing beside attention.   Limits: what left the memory cannot be recalled, and no first tokens stay (attention sinks), without
which many models write nothing sensible; at its own positions it reaches no further than the model, packed it does.
Differs from the paper: only its abstract could be had, and no code. A query attends to all of the memory, where the paper's queries
retrieve keys from it; a chunk is `slack` tokens on a grid of the text, however it is read.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.eviction._memory import Memory
from longreach.core.bands import LayerContext
from longreach.core.memory import Signal, Signals
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class Fifo(Memory):
    """Args: budget: tokens that stay (>= 1). slack: tokens that may come on top before some have to go (1: a sliding window). packed: keys
    stand at places in the cache, so that it reads on beyond the window.
    """

    signals: ClassVar[tuple[Signal, ...]] = ()
    by_head: ClassVar[bool] = False

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """All the same, for of equal ones the later stay."""
        return torch.zeros(signals.index.shape, device=signals.index.device)

    def worth(self, seen: int, history: History) -> Tensor:
        """The place in the text."""
        return torch.arange(history.k.shape[1], dtype=torch.float64).expand(len(history.k), -1)


METHOD = Fifo
EXAMPLES = (Fifo(budget=12, slack=4), Fifo(budget=1, slack=1), Fifo(budget=9, slack=3, packed=True))
NEUTRAL = (Fifo(budget=64),)
BAD = ({"budget": 0}, {"budget": 8, "slack": 0})
