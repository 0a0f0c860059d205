"""LongGen: the middle third of the layers sees everything, all others the first tokens and a sliding window.

Paper: A Little Goes a Long Way: Efficient Long Context Training and Inference with Partial Contexts, 2024, arXiv:2410.01485
Cost: a third of the cache grows with the text; the rest is bounded.   Limits: the model is to be tuned under it, at the length at which it
reads; on a model as it is, some of what is far away is lost. Keys stand where they are, so that it reaches no further than the model.
Differs from the paper: the other variant of its sparse layers, strided blocks, is left out.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.attention.base import Places, Vectors
from longreach.core.bands import Band, LayerContext
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class LongGen(Places):
    """Args: window_size: last tokens that the outer layers see, the current one included. num_sinks: first tokens that they see."""

    info: ClassVar = MethodInfo(
        title="A Little Goes a Long Way: Efficient Long Context Training and Inference with Partial Contexts",
        paper="arXiv:2410.01485",
        training_free=False,
    )
    window_size: int
    num_sinks: int = 4

    def __post_init__(self) -> None:
        at_least(self, 0, "num_sinks")
        at_least(self, 1, "window_size")

    @staticmethod
    def _whole(layer: LayerContext) -> bool:
        """Whether the layer is one of the middle third (rounded up), with as many layers before it as behind it, or one less before."""
        layers = len(layer.full_layers)
        third = -(-layers // 3)
        first = (layers - third) // 2
        return first <= layer.full_layers.index(layer.layer_idx) < first + third

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Everything, or the window and the first tokens."""
        if self._whole(layer):
            return (Band(),)
        window = Band(hi=self.window_size - 1, after=self.num_sinks)
        return (window, Band(sinks=self.num_sinks)) if self.num_sinks else (window,)

    def reference_of(self, i: Tensor, j: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """By layer."""
        visible = j <= i
        return i - j, visible if self._whole(vectors.layer) else visible & ((j < self.num_sinks) | (i - j < self.window_size))


METHOD = LongGen
EXAMPLES = (LongGen(window_size=16), LongGen(window_size=5, num_sinks=0), LongGen(window_size=1, num_sinks=2))
NEUTRAL = (LongGen(window_size=64),)
BAD = ({"window_size": 0}, {"window_size": 4, "num_sinks": -1})
