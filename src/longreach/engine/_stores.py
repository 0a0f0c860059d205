"""Which store of the engine holds what a policy declares."""

from typing import Any

from longreach.core.bands import LayerContext
from longreach.core.memory import Blocks, Carried, Clustered, Coded, Kept, Store
from longreach.engine._blocks import BlocksStore
from longreach.engine._carried import CarriedStore
from longreach.engine._clusters import ClusteredStore
from longreach.engine._coded import CodedStore
from longreach.engine._cuts import CutStore
from longreach.engine._kept import KeptStore, Place


def new_store(view: Store | None, context: LayerContext, place: Place) -> CutStore[Any, Any] | None:
    """An empty store of the kind that is declared, where one is. Args: place: rotates vectors to positions."""
    match view:
        case Kept():
            return KeptStore(view, context, place=place)
        case Coded():
            return CodedStore(view, context)
        case Blocks():
            return BlocksStore(view, context, place=place)
        case Clustered():
            return ClusteredStore(view, context)
        case Carried():
            return CarriedStore(view, context)
    return None
