"""LM-Infinite: a Lambda-shaped mask (first tokens and a sliding window) and a ceiling on distances.

Paper: LM-Infinite: Simple On-the-Fly Length Generalization for Large Language Models, 2023, arXiv:2308.16137
Cost: constant memory and time a token.   Limits: reads without end but forgets: what left the window cannot be recalled.
Differs from the paper: leaves out the optional re-attention to k far tokens in middle layers. In the authors' code first tokens that have
left the window are all at the distance `limit`, here at min(distance, limit); that is the same where `limit` is the window.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from longreach.attention.base import Places
from longreach.core.bands import Band, Constant, LayerContext
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class LmInfinite(Places):
    """Args: num_sinks: first tokens always seen. window_size: last tokens seen, the current one included.

    limit: ceiling on distances (default: window_size).
    """

    info: ClassVar = MethodInfo(
        title="LM-Infinite: Simple On-the-Fly Length Generalization for Large Language Models",
        paper="arXiv:2308.16137",
        bounded_memory=True,
        forgets=True,
        claims=(Claim(text="fluent to 32k tokens and beyond", metric="rise", at_most=0.05),),
    )
    num_sinks: int
    window_size: int
    limit: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 0, "num_sinks")
        at_least(self, 1, "window_size", "limit")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["LmInfinite", ...]:
        """Four sinks, as in StreamingLLM, and the rest of the window."""
        return (cls(num_sinks=4, window_size=max(1, trained_window - 4)),)

    @property
    def ceiling(self) -> int:
        """The largest distance that the rotary embedding sees."""
        return self.window_size if self.limit is None else self.limit

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """The window and the sinks, each split where the distance reaches the ceiling."""
        still = Band(queries=Constant(self.ceiling), keys=Constant(0), lo=self.ceiling + 1)
        last = self.window_size - 1
        bands = [Band(hi=min(last, self.ceiling), after=self.num_sinks)]
        if last > self.ceiling:
            bands.append(replace(still, hi=last, after=self.num_sinks))
        if self.num_sinks:
            bands += [Band(hi=self.ceiling, sinks=self.num_sinks), replace(still, sinks=self.num_sinks)]
        return tuple(bands)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """min(i - j, limit); visible: the first tokens and the window."""
        return (i - j).clamp(max=self.ceiling), (j < self.num_sinks) | (i - j < self.window_size)


METHOD = LmInfinite
EXAMPLES = (
    LmInfinite(num_sinks=4, window_size=16),
    LmInfinite(num_sinks=4, window_size=16, limit=24),
    LmInfinite(num_sinks=2, window_size=16, limit=5),
    LmInfinite(num_sinks=0, window_size=8),
)
NEUTRAL = (LmInfinite(num_sinks=4, window_size=64),)
BAD = ({"num_sinks": -1, "window_size": 4}, {"num_sinks": 4, "window_size": 0}, {"num_sinks": 4, "window_size": 8, "limit": 0})
