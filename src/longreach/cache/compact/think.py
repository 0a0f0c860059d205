"""ThinK: at the end of the prompt keys lose the channels that matter least to its last queries, and are that much smaller.

Paper: ThinK: Thinner Key Cache by Query-Driven Pruning, 2024, arXiv:2407.21018
Cost: next to none when the prompt ends; it is held whole until tokens after it are read. Where many follow at once, their keys are widened
again for the kernel.
Limits: values stay whole, so keep=0.6 saves a fifth of the cache. Cut once: what is written stays whole, and so do further turns of a chat.
A text that is only read, as to measure its loss, is all prompt, and nothing of it goes; where a prompt ends is told as for snapkv. It
stands by itself, on a cache that keeps everything, or behind a policy that cuts at the end of the prompt and whose keys are not packed
(snapkv:budget=1024+think:keep=0.6); one that cuts again and again would have channels chosen of keys that are thin already. Whatever their
budget, layers keep the exempt tokens.
Differs from the paper: heads that share keys share the channels that stay, by the mean of their scores, as in kvpress (the official code
repeats keys for every query head, and keeps as many caches). Values are not pruned, which the paper tries as an extension. The H2O of its
code goes by the last queries alone, once, as snapkv does; h2o here goes by all queries, again and again, and is refused.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CacheWrapper, Eviction
from longreach.core.bands import PROBE
from longreach.core.cuts import PromptEnd
from longreach.core.errors import SpecError
from longreach.core.memory import Kept
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class Think(CacheWrapper):
    """Args: keep: share of the channels of each key that stays, rounded up (above 0, up to 1; paper: 0.6, and 0.5). observe: last queries
    of the prompt, which decide (paper: 32). exempt: last tokens of the prompt whose keys stay whole (paper: 32).
    """

    info: ClassVar = MethodInfo(title="ThinK: Thinner Key Cache by Query-Driven Pruning", paper="arXiv:2407.21018")
    alone: ClassVar[bool] = True
    needs: ClassVar[str] = "it thins the keys that are kept where the prompt ends, and this keeps others"
    instead: ClassVar[str] = "put it behind a policy that cuts there, or leave that one out"
    keep: float = 0.6
    observe: int = 32
    exempt: int = 32

    def __post_init__(self) -> None:
        at_least(self, 1, "observe")
        at_least(self, 0, "exempt")
        if not 0 < self.keep <= 1:
            raise SpecError(f"think: keep={self.keep:g} must be above 0 and at most 1: it is the share of the channels that stays")

    @property
    def last(self) -> int:
        """The exempt ones."""
        return self.exempt

    def refusal(self, inner: Eviction) -> str | None:
        """Where keys are not taken over once, as they are."""
        budget = inner.tokens(PROBE)
        if not isinstance(inner.cut(PROBE), PromptEnd):
            return "it cuts again and again, and channels would be chosen of keys that are thin already"
        if inner.packed:
            return "its keys are packed, and channels are chosen where keys stand in the text"
        if inner.kept(PROBE).thinner is not None:
            return "its keys are thin already"
        if 0 < budget < self.exempt:
            return f"its budget of {budget} tokens is smaller than exempt={self.exempt}, which it has to hold"
        return None

    def kept(self, inner: Kept) -> Kept:
        """Thin keys."""
        return replace(inner, thinner=self)

    def channels(self, keys: Tensor, queries: Tensor) -> Tensor:
        """Those with the most of what keys and queries have in them: the product of the sums of squares, which is what logits lose."""
        batch, heads = keys.shape[:2]
        asked = queries.float().square().mean(2).view(batch, heads, -1, keys.shape[3]).mean(2)
        score = asked * keys.float().square().sum(2)
        return score.topk(self._count(keys.shape[3])).indices.sort(-1).values

    def _count(self, channels: int) -> int:
        return math.ceil(round(self.keep * channels, 6))

    def form(self, sight: Sight, i: int, history: History) -> Sight:
        """Keys of the prompt, but for the exempt ones, with zeros in the channels that go."""
        places = torch.arange(history.k.shape[1])
        keys, prompt = history.rotated(history.k, places).clone(), history.prompt
        first, groups = max(0, prompt - self.exempt), len(history.q) // len(history.k)
        if 0 < prompt <= i and first:
            queries = history.rotated(history.q, places)[:, max(0, prompt - self.observe) : prompt]
            for head, tokens in enumerate(sight.tokens):
                held = keys[head, [token for token in tokens if token < prompt]]
                mine = queries[head * groups : (head + 1) * groups]
                lost = (mine[:, :, None] * held).square().sum((0, 1, 2)).tolist()  # of all logits, by channel
                gone = sorted(range(len(lost)), key=lambda channel: lost[channel])[: len(lost) - self._count(len(lost))]
                keys[head, :first, gone] = 0
        return replace(sight, keys=keys)


METHOD = Think
EXAMPLES = (Think(keep=0.5, observe=6, exempt=5), Think(keep=0.3, observe=40, exempt=0))
STACKS = (
    "snapkv:budget=10,window_size=3,kernel_size=3+think:keep=0.5,observe=4,exempt=5",
    "snapkv:budget=10,window_size=3,kernel_size=3+ada+pyramid+think:keep=0.4,exempt=2",
    "knorm:budget=0.3+think:keep=0.5,exempt=9",
)
NEUTRAL = (Think(keep=1),)
BAD = ({"keep": 0}, {"keep": -0.5}, {"keep": 1.1}, {"observe": 0}, {"exempt": -1})
