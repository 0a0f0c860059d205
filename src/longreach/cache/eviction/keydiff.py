"""KeyDiff: the tokens stay whose keys differ most from the mean direction of all keys in the cache.

Paper: KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained Environments, 2025,
arXiv:2504.15364
Cost: a product of each key with the mean at a cut; no attention is computed again, so it goes with any kernel.
Limits: a score that asks nothing of the queries; what it drops is gone, whatever is asked later. Keys stay where they stand, so that it
reaches no further than the model.
Differs from the paper: cut once, where the prompt ends, by default; the paper reads a prompt in blocks and cuts after each: every=128.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from longreach.cache.eviction._scored import Scored
from longreach.core.bands import LayerContext
from longreach.core.memory import Signal, Signals
from longreach.core.method import MethodInfo
from longreach.core.sight import History


@dataclass(frozen=True, kw_only=True)
class KeyDiff(Scored):
    """Args: budget: tokens that stay (>= 1), or a share of the prompt (below 1). every: 0: cut once, where the prompt ends; else whenever
    so many tokens are on top of the budget, within the prompt, too.
    """

    info: ClassVar = MethodInfo(
        title="KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained Environments",
        paper="arXiv:2504.15364",
        forgets=True,
    )
    signals: ClassVar[tuple[Signal, ...]] = ("turned",)
    packed: ClassVar[bool] = False  # type: ignore[misc]  # the scores would hang on where keys were put before

    def score(self, signals: Signals, layer: LayerContext) -> Tensor:
        """Minus the cosine between each key and the mean of all keys' directions."""
        assert signals.turned is not None  # noqa: S101 - asked for
        keys, there = signals.turned.float(), signals.index[..., None] >= 0
        mean = (normalize(keys, dim=-1) * there).sum(2, keepdim=True) / there.sum(2, keepdim=True)
        return -cosine_similarity(keys, mean, dim=-1)

    def worth(self, seen: int, history: History) -> Tensor:
        """Head by head, over the tokens that it holds."""
        keys = history.rotated(history.k, torch.arange(history.k.shape[1]))
        worth = torch.zeros(keys.shape[:2], dtype=keys.dtype)
        for head, tokens in enumerate(history.held):
            mean = torch.stack([keys[head, token] / keys[head, token].norm() for token in tokens]).mean(0)
            for token in tokens:
                key = keys[head, token]
                worth[head, token] = -(key @ mean) / (key.norm() * mean.norm())
        return worth


METHOD = KeyDiff
EXAMPLES = (KeyDiff(budget=10), KeyDiff(budget=0.3), KeyDiff(budget=9, every=4))
STACKS = ("keydiff:budget=10+ada",)
NEUTRAL = (KeyDiff(budget=64),)
BAD = ({"budget": 0}, {"budget": 0.5, "every": 4}, {"budget": 8, "every": -1})
