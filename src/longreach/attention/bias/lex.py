"""LeX: rotary positions whose far pairs fade (xPos), and blocks of half a window: a query sees its own block and the one before.

Paper: A Length-Extrapolatable Transformer, 2022, arXiv:2212.10554
Cost: two bands; linear time.   Limits: a model has to be trained under it; it reads without end but forgets what lies two blocks back.
Differs from the paper: blocks are used in training, too. There the sequence is two blocks long, and they change nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import Fades, Places
from longreach.core.bands import Band, LayerContext, Within
from longreach.core.method import Claim, MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Lex(Places, Fades):
    """Args: block_size: tokens, half the trained window. scale_base: tokens over which the fading is told. gamma: of the fading."""

    info: ClassVar = MethodInfo(
        title="A Length-Extrapolatable Transformer",
        paper="arXiv:2212.10554",
        training_free=False,
        changes_positions=True,
        forgets=True,
        bounded_memory=True,
        claims=(
            Claim(
                text="trained on 1024 tokens, perplexity at 4096 is below that inside the training length",
                metric="scratch_rise_8x",
                condition="trained",
                at_most=0.0,
            ),
        ),
    )
    block_size: int
    scale_base: float = 512.0
    gamma: float = 0.4

    def __post_init__(self) -> None:
        at_least(self, 1, "block_size", "scale_base")
        at_least(self, 0, "gamma")

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """The own block, and the one before."""
        size = self.block_size
        own = Band(queries=Within(size), keys=Within(size), lo=0, hi=0, chunk=size)
        before = Band(queries=Within(size, shift=size), keys=Within(size), lo=1, hi=1, chunk=size)
        return own, before

    def decay(self, pairs: int, layer: LayerContext) -> Tensor:
        """((2i / d + gamma) / (1 + gamma)) ^ (1 / scale_base): fast pairs fade most."""
        return ((torch.arange(pairs) / pairs + self.gamma) / (1 + self.gamma)) ** (1 / self.scale_base)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """True distances, where the blocks are the same or next to each other."""
        return i - j, (j <= i) & (i // self.block_size - j // self.block_size <= 1)


METHOD = Lex
EXAMPLES = (Lex(block_size=8), Lex(block_size=13, scale_base=16.0))
NEUTRAL = (Lex(block_size=128, scale_base=1e12),)
BAD = ({"block_size": 0}, {"block_size": 8, "gamma": -1})
