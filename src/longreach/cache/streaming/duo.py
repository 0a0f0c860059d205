"""DuoAttention: some heads keep everything, the others the first tokens and a window, each in a buffer of its own size.

Paper: DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads, 2024, arXiv:2410.10819
Cost: of the cache, the share of heads that keep everything grows with the text; one file for each model, which says what heads retrieve.
Limits: the window of the model is unchanged, for keys stand where they are; what only a streaming head would have found is lost.
Differs from the paper: heads are told by how much they look at what they copy (`longreach heads --save`), where the paper trains a gate
for each; the authors' gates can stand in the file's scores.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from longreach.cache.base import CachePolicy
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.fitting import HeadsFile
from longreach.core.memory import HeadGroup, View
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History, Sight

_LISTED = re.compile(r"\d+\.\d+(/\d+\.\d+)*")


@dataclass(frozen=True, kw_only=True)
class Duo(CachePolicy):
    """Args: file: of `longreach heads --save`. retrieval: the share of key-value heads that keep everything, those with the highest scores
    in the file (paper: 0.25, or 0.5 where query heads share keys). heads: these, in place of a file, as layer.head from 0, joined by /; of
    the layers those with full attention count. num_sinks, window_size: first and last tokens that the others keep, the current one included
    (paper: 64 and 256).
    """

    info: ClassVar = MethodInfo(
        title="DuoAttention: Efficient Long-Context LLM Inference with Retrieval and Streaming Heads", paper="arXiv:2410.10819"
    )
    file: HeadsFile | None = None
    retrieval: float = 0.5
    heads: str | None = None
    num_sinks: int = 64
    window_size: int = 256

    def __post_init__(self) -> None:
        at_least(self, 0, "num_sinks")
        at_least(self, 1, "window_size")
        if (self.file is None) == (self.heads is None):
            raise SpecError(f"duo: give file=FILE, which `{HeadsFile.made_by}` writes, or heads=LAYER.HEAD/...")
        if self.heads is not None and not _LISTED.fullmatch(self.heads):
            raise SpecError(f"duo: heads={self.heads} must be pairs of layer and head, from 0, as in heads=0.1/2.0")
        if not 0 <= self.retrieval <= 1:
            raise SpecError(f"duo: retrieval={self.retrieval:g} must be a share of the heads, from 0 to 1")
        if self.file is not None and self.file.data["method"] != self.name():
            raise SpecError(f"duo: {self.file.name} was fitted for {self.file.data['method']}; `{HeadsFile.made_by}` writes one")

    def _retrieving(self, layer: LayerContext) -> Sequence[int]:
        """The heads of a layer that keep everything."""
        index, layers, kv_heads = layer.full_layers.index(layer.layer_idx), len(layer.full_layers), layer.num_kv_heads
        if self.heads is not None:
            chosen = [(int(place), int(head)) for place, _, head in (pair.partition(".") for pair in self.heads.split("/"))]
            if wrong := [pair for pair in chosen if not (pair[0] < layers and pair[1] < kv_heads)]:
                what = f"the model has {layers} layers with full attention, of {kv_heads} key-value heads, from 0"
                raise SpecError(f"duo: heads={wrong[0][0]}.{wrong[0][1]}: {what}")
        else:
            assert self.file is not None  # noqa: S101 - checked when it was made
            scores: list[list[float]] = self.file.data["fitted"]["scores"]
            if len(scores) != layers or any(len(row) != kv_heads for row in scores):
                shape = f"{len(scores)} layers of {len(scores[0]) if scores else 0} heads"
                raise SpecError(f"duo: {self.file.name} is of another model: {shape}, and this one has {layers} of {kv_heads}")
            ranked = sorted(((-score, place, head) for place, row in enumerate(scores) for head, score in enumerate(row)))
            chosen = [(place, head) for _, place, head in ranked[: round(self.retrieval * len(ranked))]]
        return sorted({head for place, head in chosen if place == index and head < kv_heads})

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """Both kinds of heads, or what all heads of the layer do."""
        full: tuple[Band, ...] = (Band(),)
        streaming = [Band(hi=self.window_size - 1, after=self.num_sinks)]
        streaming += [Band(sinks=self.num_sinks)] if self.num_sinks else []
        if layer.probe:  # one of each
            return (HeadGroup((0,), full), HeadGroup((0,), tuple(streaming)))
        retrieving = tuple(self._retrieving(layer))
        others = tuple(head for head in range(layer.num_kv_heads) if head not in retrieving)
        if not retrieving or not others:
            return full if retrieving else tuple(streaming)
        return (HeadGroup(retrieving, full), HeadGroup(others, tuple(streaming)))

    def sight(self, i: int, history: History) -> Sight:
        """Everything, or the first tokens and the window."""
        near = sorted({*range(min(self.num_sinks, i + 1)), *range(max(0, i - self.window_size + 1), i + 1)})
        retrieving = self._retrieving(history.layer)
        return Sight(tokens=[range(i + 1) if head in retrieving else near for head in range(len(history.k))])


METHOD = Duo
_FILE = {"format": 1, "method": "duo", "fitted": {"scores": [[0.1, 0.3], [0.5, 0.2]]}}
EXAMPLES = (
    Duo(heads="0.1", num_sinks=2, window_size=8),
    Duo(heads="0.0/1.0/1.1", num_sinks=0, window_size=5),
    Duo(file=HeadsFile.of("heads", _FILE), num_sinks=1, window_size=3),
)
NEUTRAL = (Duo(heads="0.0", num_sinks=4, window_size=64), Duo(heads="0.0", num_sinks=64, window_size=1))
BAD: tuple[dict[str, object], ...] = (
    {"heads": "0"},
    {"heads": "0.0", "window_size": 0},
    {"heads": "0.0", "num_sinks": -1},
    {"heads": "0.0", "retrieval": 1.5},
)
