"""MASFormer, mixed attention spans: a few layers see everything, all others the query's block and the one before.

Paper: Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every Layer, 2023, arXiv:2310.12442
Cost: `full_layers` of the layers have a cache that grows with the text; the others keep two blocks.   Limits: the model is to be tuned
under it, at the length at which it reads; keys stand where they are, so that it reaches no further than the model.
Differs from the paper: only its abstract could be had, and no code: at which end of the model the full layers stand is a setting.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Band, LayerContext
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class MixedSpan(Places):
    """Args: full_layers: layers that see everything (>= 0; of those with full attention in the model; all, where there are fewer). place:
    whether these are the last ones, the first ones, or spread evenly with the last among them. block_size: tokens of a block.
    """

    info: ClassVar = MethodInfo(
        title="Efficient Long-Range Transformers: You Need to Attend More, but Not Necessarily at Every Layer",
        paper="arXiv:2310.12442",
        training_free=False,
    )
    full_layers: int
    place: Literal["last", "first", "spread"] = "last"
    block_size: int = 1024

    def __post_init__(self) -> None:
        at_least(self, 0, "full_layers")
        at_least(self, 1, "block_size")

    def _whole(self, layer: LayerContext) -> bool:
        layers, index = len(layer.full_layers), layer.full_layers.index(layer.layer_idx)
        if self.place == "spread":  # where the count of full layers so far goes up
            return (index + 1) * self.full_layers // layers > index * self.full_layers // layers
        return index < self.full_layers if self.place == "first" else index >= layers - self.full_layers

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Everything, or two blocks."""
        return (Band(),) if self._whole(layer) else (Band(chunk=self.block_size, hi=1),)

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """By layer."""
        visible = j <= i
        return i - j, visible if self._whole(vectors.layer) else visible & (i // self.block_size - j // self.block_size <= 1)


METHOD = MixedSpan
EXAMPLES = (
    MixedSpan(full_layers=0, block_size=8),
    MixedSpan(full_layers=1, block_size=5),
    MixedSpan(full_layers=1, place="first", block_size=1),
    MixedSpan(full_layers=1, place="spread", block_size=7),
)
NEUTRAL = (MixedSpan(full_layers=0, block_size=64), MixedSpan(full_layers=1, block_size=32))
BAD = ({"full_layers": -1}, {"full_layers": 1, "block_size": 0}, {"full_layers": 1, "place": "middle"})
