"""The contract of cache policies: which tokens are kept, and at which positions they are seen."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.bands import LayerContext, View
from longreach.core.method import Method


@dataclass(frozen=True, kw_only=True)
class CachePolicy(Method):
    """What is kept. Without a policy the engine keeps what the bands can still reach; `keep_all` keeps everything."""

    kind: ClassVar[str] = "cache"
    keep_all: ClassVar[bool] = False

    def stores(self, layer: LayerContext) -> tuple[View, ...] | None:
        """The parts of a layer's memory; None leaves the choice to an attention policy."""
        return None

    def views(self, layer: LayerContext) -> tuple[View, ...] | None:
        """What a query sees: the stores."""
        return self.stores(layer)

    def reference(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor]:
        """The definition: (relative position, visible) of queries `i` and keys `j` (indices, broadcast; causality is added)."""
        return i - j, j <= i
