"""All of the text in blocks, in the host's memory, found by what represents them."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from longreach.core.bands import PositionMap
from longreach.core.memory import Blocks
from longreach.engine._channels import Change, Channels
from longreach.engine._choice import attend_chosen
from longreach.engine._cuts import CutStore, Part, State, StoreRow

_QUERIES = 32  # that look for blocks at once: bounds how many blocks they need together

Block = tuple[Tensor, Tensor]  # keys and values [B, K, C, D]


@dataclass(frozen=True, kw_only=True)
class BlocksState(State):
    """blocks: where each lies. representatives: [B, K, n, E], on the device."""

    blocks: tuple[Block, ...]
    representatives: Tensor | None


class Shelf:
    """Loads blocks from the host and keeps the last ones on the device. Args: most: so many."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.loaded: OrderedDict[int, tuple[Block, Block]] = OrderedDict()  # by the identity of the keys, which are kept alive beside

    def get(self, blocks: Sequence[Block], device: torch.device) -> Block:
        """Keys and values [B, K, n, C, D] of blocks, on the device."""
        found = [block if block[0].device == device else self._load(block, device) for block in blocks]
        while len(self.loaded) > self.most:
            self.loaded.popitem(last=False)
        return torch.stack([k for k, _ in found], 2), torch.stack([v for _, v in found], 2)

    def _load(self, block: Block, device: torch.device) -> Block:
        key = id(block[0])
        if key not in self.loaded:
            self.loaded[key] = block, (block[0].to(device, non_blocking=True), block[1].to(device, non_blocking=True))
        self.loaded.move_to_end(key)
        return self.loaded[key][1]


class BlocksStore(CutStore[Blocks, BlocksState]):
    """Blocks by their place in the text."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.shelf = Shelf(self.view.loaded)

    @property
    def host_fields(self) -> AbstractSet[str]:
        """The blocks, where the policy wants that."""
        return frozenset({"blocks"} if self.view.host else ())

    def empty(self, like: dict[object, Tensor], start: int) -> BlocksState:
        """Nothing."""
        return BlocksState(upto=start, blocks=(), representatives=None)

    def taken(self, row: StoreRow[BlocksState], window: Channels, oldest: int, slot: int, start: int) -> BlocksState:
        """With the blocks that are no longer near."""
        state, size = row.state, self.view.chunk
        due = (slot - state.upto) // size - self.view.near
        if due <= 0:
            return state
        _, received = self.received(row, window, oldest, slot)
        blocks, found = list(state.blocks), [] if state.representatives is None else [state.representatives]
        for number in range(due):
            within = slice(number * size, (number + 1) * size)
            part = slice(state.upto - oldest + within.start, state.upto - oldest + within.stop)
            k, v = window.view(self.view.keys)[:, :, part], window.view("v")[:, :, part]
            with torch.no_grad():
                found.append(self.view.chooser.represent(k, received[:, :, within])[:, :, None])
            blocks.append(self._stored(k, v))
        return BlocksState(upto=state.upto + due * size, blocks=tuple(blocks), representatives=torch.cat(found, 2))

    def _stored(self, k: Tensor, v: Tensor) -> Block:
        if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
            return k, v
        if self.view.host and k.device.type != "cpu":
            return k.to("cpu").pin_memory(), v.to("cpu").pin_memory()
        return k.clone(), v.clone()  # not views, which would keep the window's buffers alive

    def pieces(self, state: BlocksState, q: Tensor, turned: Callable[[PositionMap, slice], Tensor]) -> Iterator[Part]:
        """The blocks that each query chooses."""
        if state.representatives is None:
            return
        for first in range(0, q.shape[2], _QUERIES):
            rows = slice(first, min(first + _QUERIES, q.shape[2]))
            far = turned(self.view.queries, rows)
            with torch.no_grad():
                chosen = self.view.chooser.select(far, state.representatives)
            needed = chosen[chosen >= 0].unique()
            if not len(needed):
                continue
            keys, values = self.shelf.get([state.blocks[number] for number in needed.tolist()], q.device)
            place = torch.full((len(state.blocks) + 1,), -1, device=q.device)
            place[needed] = torch.arange(len(needed), device=q.device)  # the last stays -1, for none
            placed = far[:, :, :, None].expand(*far.shape[:3], chosen.shape[3], far.shape[3])
            yield (rows, *attend_chosen(placed, keys, values, place[chosen], self.scale, self.softcap))

    def changed(self, state: BlocksState, change: Change) -> BlocksState:
        """Every block changed."""
        here = None if state.representatives is None else change(state.representatives)
        return replace(state, blocks=tuple((change(k), change(v)) for k, v in state.blocks), representatives=here)
