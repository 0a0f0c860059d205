"""StreamingLLM: the first tokens (attention sinks) and a sliding window are kept, at positions inside the cache.

Paper: Efficient Streaming Language Models with Attention Sinks, 2023, arXiv:2309.17453
Cost: constant memory and time a token.   Limits: reads without end but forgets: what left the window cannot be recalled.
Differs from the paper: nothing. (Positions inside the cache are relative: the window at true distances, the sinks as seen from at most
num_sinks + window_size - 1; no key ever moves.)
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, Clamped, LayerContext
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Sinks(CachePolicy):
    """Args: num_sinks: first tokens kept for good (paper: 4). window_size: last tokens kept, the current one included."""

    info: ClassVar = MethodInfo(
        title="Efficient Streaming Language Models with Attention Sinks",
        paper="arXiv:2309.17453",
        bounded_memory=True,
        forgets=True,
        claims=(Claim(text="perplexity stable to 4M tokens", metric="rise", at_most=0.05),),
    )
    num_sinks: int = 4
    window_size: int

    def __post_init__(self) -> None:
        at_least(self, 0, "num_sinks")
        at_least(self, 1, "window_size")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Sinks", ...]:
        """The paper's four sinks and the rest of the window."""
        return (cls(window_size=max(1, trained_window - 4)),)

    def stores(self, layer: LayerContext) -> tuple[Band, ...]:
        """Window; sinks from the last place in the cache."""
        window = Band(hi=self.window_size - 1, after=self.num_sinks)
        if not self.num_sinks:
            return (window,)
        return (window, Band(queries=Clamped(self.num_sinks + self.window_size - 1), sinks=self.num_sinks))

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """Positions are places in the cache [sinks, window]."""
        sink = j < self.num_sinks
        distance = torch.where(sink, i.clamp(max=self.num_sinks + self.window_size - 1) - j, i - j)
        return distance, sink | (i - j < self.window_size)


METHOD = Sinks
EXAMPLES = (Sinks(num_sinks=4, window_size=16), Sinks(num_sinks=0, window_size=8), Sinks(num_sinks=1, window_size=1))
NEUTRAL = (Sinks(num_sinks=4, window_size=64),)
BAD = ({"num_sinks": -1, "window_size": 4}, {"num_sinks": 4, "window_size": 0})
