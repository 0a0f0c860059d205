"""What a window leaves to the next one: a key and a value made of the hidden states of a layer, which the decoder's runs tell of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from longreach.core.memory import Carried
from longreach.engine._channels import Change, Channels
from longreach.engine._cuts import CutStore, Part, State, StoreRow
from longreach.engine._fused import attend
from longreach.engine._store import HIDDEN


@dataclass(frozen=True, kw_only=True)
class CarriedState(State):
    """k, v: [B, K, 1, D]; None in the first window."""

    k: Tensor | None
    v: Tensor | None


class CarriedStore(CutStore[Carried, CarriedState]):
    """The key and the value of the last whole window."""

    def empty(self, like: dict[object, Tensor], start: int) -> CarriedState:
        """None."""
        return CarriedState(upto=start, k=None, v=None)

    def taken(self, row: StoreRow[CarriedState], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> CarriedState:
        """Those of the window that ends before the slot."""
        hidden = window.view(HIDDEN)[:, 0, slot - self.view.window - oldest : slot - oldest]
        k, v = self.view.maker.carry(hidden, self.context)
        return CarriedState(upto=slot, k=k, v=v)

    def pieces(self, state: CarriedState, q: Tensor, turned: Any) -> Iterator[Part]:
        """The one key, which is not turned."""
        if state.k is None or state.v is None:
            return
        queries = turned(self.view.queries, slice(0, q.shape[2]))
        yield (slice(0, q.shape[2]), *attend(queries, state.k, state.v, scale=self.scale, softcap=self.softcap))

    def changed(self, state: CarriedState, change: Change) -> CarriedState:
        """Both changed."""
        return state if state.k is None or state.v is None else replace(state, k=change(state.k), v=change(state.v))
