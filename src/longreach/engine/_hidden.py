"""The hidden states that layers get, for others that carry some of them on from window to window."""

from typing import Any, ClassVar

from torch import Tensor
from transformers import Cache, PreTrainedModel

from longreach.core.cuts import Cut
from longreach.core.memory import Carried
from longreach.engine._runs import Adopting, RunReader
from longreach.engine._store import HIDDEN, BandLayer
from longreach.engine.layer import LayerEngine


class HiddenReader(RunReader):
    """Tells layers of the hidden states that others got. Args: layers: of the engine, by their place in the cache."""

    what: ClassVar = "the hidden states of windows"

    def __init__(self, engine: Adopting, model: PreTrainedModel, cuts: frozenset[Cut], layers: dict[int, LayerEngine]) -> None:
        super().__init__(engine, model, cuts)
        self.layers = layers
        self.full = [layer for layer in layers.values() if layer.native_window is None]

    @property
    def sources(self) -> list[LayerEngine]:
        """The layers whose hidden states are asked for."""
        return [self.full[layer.stored.source] for layer in self.layers.values() if isinstance(layer.stored, Carried)]

    def note(self, cache: Cache, output: Any, hidden: Tensor, ids: Tensor, begin: int) -> None:
        """Each layer those of its own source."""
        for index, layer in self.layers.items():
            held = cache.layers[index]
            if isinstance(layer.stored, Carried) and isinstance(held, BandLayer):
                seen = self.full[layer.stored.source].hidden
                assert seen is not None  # noqa: S101 - its hook has seen the run
                held.recent.rewrite_last(HIDDEN, seen[:, None])
        for layer in self.sources:
            layer.hidden = None  # with what it was computed from
