"""All of the text in blocks, found by what represents them; they may lie in the host's memory or on disk."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longreach.core.bands import PositionMap
from longreach.core.memory import Blocks
from longreach.engine._accounts import RECEIVED
from longreach.engine._channels import Change, Channels
from longreach.engine._choice import attend_chosen
from longreach.engine._cuts import CutStore, Part, State, StoreRow
from longreach.engine._fused import attend
from longreach.engine._kept import Place
from longreach.engine._pages import PageBuffer, Pages

_QUERIES = 128  # that look for blocks at once: bounds how many blocks they need together
_FEW = 4  # queries that get copies of the blocks they chose, instead of being sorted by block

Loaded = tuple[Tensor, Tensor]  # keys and values of a block, [B, K, C, D]


@dataclass(frozen=True, kw_only=True)
class BlocksState(State):
    """blocks: `k` and `v` [n, B, K, C, D]. finders: `e` [n, B, K, E], what represents each, on the device. chosen: the blocks that the
    queries which follow share, [B, H | 1, P], -1 for none; None where each chooses for itself.
    """

    blocks: Pages
    finders: Pages
    chosen: Tensor | None = None


class Shelf:
    """Loads blocks onto the device and keeps those used last. Args: most: so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.loaded: OrderedDict[tuple[PageBuffer, int], Loaded] = OrderedDict()

    def get(self, blocks: Pages, numbers: list[int], device: torch.device) -> Loaded:
        """Keys and values [B, K, n, C, D] of some blocks, on the device."""
        found = [self._load(blocks, number, device) for number in numbers]
        while len(self.loaded) > self.most:
            self.loaded.popitem(last=False)
        return torch.stack([k for k, _ in found], 2), torch.stack([v for _, v in found], 2)

    def _load(self, blocks: Pages, number: int, device: torch.device) -> Loaded:
        key = blocks.buffer, number
        if key not in self.loaded:
            self.loaded[key] = blocks["k"][number].to(device, non_blocking=True), blocks["v"][number].to(device, non_blocking=True)
        self.loaded.move_to_end(key)
        return self.loaded[key]


class BlocksStore(CutStore[Blocks, BlocksState]):
    """Blocks by their place in the text. Args: place: rotates vectors to positions."""

    def __init__(self, *args: Any, place: Place) -> None:
        super().__init__(*args)
        self.place = place
        self.shelf = Shelf(self.view.loaded)

    @property
    def needs_raw(self) -> bool:
        """Queries that choose together are placed where they see blocks from."""
        return self.view.shared > 1

    def empty(self, like: dict[object, Tensor], start: int) -> BlocksState:
        """Nothing."""
        return BlocksState(upto=start, blocks=Pages.empty(self.view.storage), finders=Pages.empty("device"))

    def taken(self, row: StoreRow[BlocksState], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> BlocksState:
        """With the blocks that are no longer near, and what the queries that follow see of all of them."""
        state, shared = self._grown(row, window, oldest, slot, start), self.view.shared
        if (slot - start) % shared:
            return state
        if not self.view.share(slot - start, prompt - start):
            return state if state.chosen is None else replace(state, chosen=None)
        if not len(state.blocks):
            return replace(state, chosen=torch.zeros(window.view("v").shape[0], 1, 0, dtype=torch.long, device=window.view("v").device))
        first = slot - shared
        with torch.no_grad():
            queries = torch.cat([run.between(first, slot).raw for run in row.runs if run.end > first], 2)
            at = self.view.queries(torch.arange(first, slot, device=queries.device)[None, None] - start)
            queries = self.place(queries, at, slot)
            together = queries.to(torch.promote_types(queries.dtype, torch.float32)).sum(2, keepdim=True)
            chosen = self.view.chooser.select(together, state.finders["e"].permute(1, 2, 0, 3))
        return replace(state, chosen=chosen[:, :, 0])

    def _grown(self, row: StoreRow[BlocksState], window: Channels, oldest: int, slot: int, start: int) -> BlocksState:
        """With the blocks that are no longer near."""
        state, size = row.state, self.view.chunk
        due = (slot - state.upto) // size - self.view.near
        if due <= 0:
            return state
        received = self.totals(row, window, oldest, slot)[1][RECEIVED][..., 0] if "received" in self.view.signals else None
        part = slice(state.upto - oldest, state.upto - oldest + due * size)
        new = {
            name: window.view(channel)[:, :, part].unflatten(2, (due, size)).permute(2, 0, 1, 3, 4)
            for name, channel in (("k", self.view.keys), ("v", "v"))
        }
        with torch.no_grad():
            found = [
                self.view.chooser.represent(k, None if received is None else received[:, :, number * size : (number + 1) * size])
                for number, k in enumerate(new["k"])
            ]
        finders = state.finders.appended({"e": torch.stack(found)})
        return replace(state, upto=state.upto + due * size, blocks=state.blocks.appended(new), finders=finders)

    def pieces(self, state: BlocksState, q: Tensor, turned: Callable[[PositionMap, slice], Tensor]) -> Iterator[Part]:
        """The blocks that each query chooses, or all of them share."""
        if not len(state.blocks) or (state.chosen is not None and not state.chosen.shape[2]):
            return
        if state.chosen is not None:
            rows = slice(0, q.shape[2])
            yield (rows, *self._attend_shared(state.blocks, turned(self.view.queries, rows), state.chosen))
            return
        finders = state.finders["e"].permute(1, 2, 0, 3)
        for first in range(0, q.shape[2], _QUERIES):
            rows = slice(first, min(first + _QUERIES, q.shape[2]))
            far = turned(self.view.queries, rows)
            with torch.no_grad():
                chosen = self.view.chooser.select(far, finders)
            if not bool((chosen >= 0).any()):
                continue
            yield (rows, *self._attend(state.blocks, far, chosen))

    def _attend(self, blocks: Pages, q: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Output and log-sum-exp of queries [B, H, T, D] over the blocks chosen [B, H | 1, T, P]."""
        if blocks["k"].device == q.device:
            if q.shape[2] <= _FEW:
                outs = [self._attend_shared(blocks, q[:, :, at : at + 1], chosen[:, :, at]) for at in range(q.shape[2])]
                return torch.cat([out for out, _ in outs], 2), torch.cat([lse for _, lse in outs], 2)
            keys, values = (blocks[name].permute(1, 2, 0, 3, 4) for name in ("k", "v"))
            return attend_chosen(q, keys, values, chosen, self.scale, self.softcap)
        needed = chosen[chosen >= 0].unique()
        keys, values = self.shelf.get(blocks, needed.tolist(), q.device)
        place = torch.full((len(blocks) + 1,), -1, device=q.device)
        place[needed] = torch.arange(len(needed), device=q.device)  # the last stays -1, for none
        return attend_chosen(q, keys, values, place[chosen], self.scale, self.softcap)

    def _attend_shared(self, blocks: Pages, q: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The same for queries that all see the blocks chosen [B, H | 1, P]."""
        keys, values = blocks["k"], blocks["v"]
        if keys.device != q.device:
            needed = chosen[chosen >= 0].unique()
            keys, values = (x.permute(2, 0, 1, 3, 4) for x in self.shelf.get(blocks, needed.tolist(), q.device))
            place = torch.full((len(blocks) + 1,), -1, device=q.device)
            place[needed] = torch.arange(len(needed), device=q.device)  # the last stays -1, for none
            chosen = place[chosen]
        return self._attend_copies(keys, values, q, chosen)

    def _attend_copies(self, keys: Tensor, values: Tensor, q: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Of queries [B, H, T, D] over copies of the blocks [n, B, K, C, D] that they see, chosen [B, H | 1, P]."""
        b, kv_heads, size = keys.shape[1:4]
        heads = kv_heads if chosen.shape[1] == 1 else chosen.shape[1]  # a copy for each head that chooses for itself
        of_row = torch.arange(b, device=q.device)[:, None, None] * kv_heads
        of_head = torch.arange(heads, device=q.device)[:, None] // (heads // kv_heads)
        chosen = chosen.expand(b, heads, -1)
        there = chosen >= 0
        line = (chosen.clamp(min=0) * (b * kv_heads) + of_row + of_head).flatten()
        k, v = (x.flatten(0, 2).flatten(1).index_select(0, line).view(b, heads, -1, x.shape[-1]) for x in (keys, values))
        mask = None
        if not bool(there.all()):
            mask = there.repeat_interleave(size, 2).repeat_interleave(q.shape[1] // heads, 1)[:, :, None].expand(-1, -1, q.shape[2], -1)
        return attend(q, k, v, scale=self.scale, mask=mask, softcap=self.softcap)

    def changed(self, state: BlocksState, change: Change) -> BlocksState:
        """Every block changed."""
        chosen = None if state.chosen is None else change(state.chosen)
        return replace(state, blocks=state.blocks.changed(change), finders=state.finders.changed(change), chosen=chosen)
