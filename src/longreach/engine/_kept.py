"""Tokens that a policy keeps, of each key-value head its own, in buffers as small as what is kept."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from longreach.core.bands import TRUE
from longreach.core.memory import Kept, Signals, Thinner
from longreach.engine._accounts import ACCOUNTS, ATTENDED, RECEIVED
from longreach.engine._channels import Change, Channels
from longreach.engine._cuts import ENTROPY, CutStore, Part, Run, State, StoreRow, with_run
from longreach.engine._fused import attend

RAW = "raw"
Place = Callable[[Tensor, Tensor, int], Tensor]  # (unrotated [B, K, m, D], positions [B, K, m], tokens seen) -> rotated


@dataclass(frozen=True, kw_only=True)
class KeptState(State):
    """channels: [B, K, m, D] each, keys under TRUE (or packed), "v", and what else is asked for. index: [B, K, m], -1: none.

    full: no head holds fewer than the others. thin: [B, K, D'], where keys have these of their channels only; no cut comes after that, and
    the index is left out where all is full: [B, K, 0].
    """

    channels: dict[object, Tensor]
    index: Tensor
    full: bool = True
    thin: Tensor | None = None


class KeptStore(CutStore[Kept, KeptState]):
    """Args: place: rotates vectors to positions."""

    def __init__(self, *args: Any, place: Place) -> None:
        super().__init__(*args)
        self.place = place

    def empty(self, like: dict[object, Tensor], start: int) -> KeptState:
        """Nothing."""
        channels = {name: tensor[:, :, :0] for name, tensor in like.items()}
        some = next(iter(channels.values()))
        return KeptState(upto=start, channels=channels, index=torch.zeros(some.shape[:3], dtype=torch.long, device=some.device))

    def taken(self, row: StoreRow[KeptState], window: Channels, oldest: int, slot: int, start: int, prompt: int) -> KeptState:
        """What the policy keeps of what was kept and of the window's tokens before `slot`."""
        if row.state.thin is not None:  # tokens after the prompt were taken back
            return row.state
        state, part = row.state, slice(row.state.upto - oldest, slot - oldest)
        fresh = {name: window.view(name)[:, :, part] for name in state.channels}
        state, totals = self.totals(row, window, oldest, slot)
        fresh |= totals
        both = {name: torch.cat([state.channels[name], new], 2) for name, new in fresh.items()}
        new = torch.arange(state.upto - start, slot - start, device=state.index.device)
        index = torch.cat([state.index, new.expand(*state.index.shape[:2], -1)], 2)
        there = index >= 0
        with torch.no_grad():
            mask = self.view.keeper.keep(self._signals(row, both, index, slot - start, slot), self.context) & there
        if self.view.thinner is not None:
            return self._thinned(self.view.thinner, row, both, index, mask, slot, start)
        if bool(mask.all()):
            return replace(state, upto=slot, channels=self._placed(both, index, slot - start), index=index)
        kept, index, full = _gathered(both, index, mask)
        return KeptState(upto=slot, channels=self._placed(kept, index, slot - start), index=index, full=full)

    def _thinned(
        self, thinner: Thinner, row: StoreRow[KeptState], channels: dict[object, Tensor], index: Tensor, mask: Tensor, slot: int, start: int
    ) -> KeptState:  # fmt: skip
        """The tokens of the mask but for the exempt ones, which the window keeps; no further cut needs more of them than is attended to."""
        first, upto = slot - thinner.observe, max(row.state.upto, slot - thinner.exempt)
        if upto == row.state.upto:
            return row.state
        runs = [run.between(first, slot) for run in row.runs if run.end > first]
        with torch.no_grad():
            keys = channels[TRUE].masked_fill(~mask[..., None], 0)
            thin = thinner.channels(keys, torch.cat([run.q for run in runs], 2))
        attended: dict[object, Tensor] = {name: channels[name] for name in (TRUE, "v")}
        kept, index, full = _gathered(attended, index, mask & (index < upto - start))
        kept[TRUE] = kept[TRUE].gather(3, thin[:, :, None].expand(-1, -1, kept[TRUE].shape[2], -1))
        index = (index[:, :, :0] if full else index).int()
        return KeptState(upto=upto, channels=kept, index=index, full=full, thin=thin)

    def _signals(self, row: StoreRow[KeptState], channels: dict[object, Tensor], index: Tensor, seen: int, slot: int) -> Signals:
        asked = self.view.signals
        observed = None
        if "observed" in asked:
            observed = channels["v"].new_zeros(index.shape, dtype=torch.float32)
            for run in row.runs:
                if run.end > slot - self.view.observe:
                    late = run.between(slot - self.view.observe, slot)
                    # A query sees no key that comes after it; those that are gone by now got what they got.
                    first = index + (slot - seen)
                    for at in range(late.q.shape[2]):
                        one = late.between(late.begin + at, late.begin + at + 1)
                        observed += self.softmax.received(one, channels[TRUE], None)[..., 0] * (first <= one.begin)
        last = times = None
        if ATTENDED in asked:
            last, times = channels[ATTENDED].long().unbind(-1)
            last = (last - 1 - (slot - seen)).masked_fill(last == 0, -1)
        moments = row.moments if self.of_queries else None
        for run in row.runs if self.of_queries else ():
            if not run.settled:
                moments = with_run(moments, run.between(run.begin, slot))
        return Signals(
            seen=seen,
            index=index,
            keys=channels[RAW] if "keys" in asked else None,
            turned=channels[TRUE] if "turned" in asked else None,
            values=channels["v"] if "values" in asked else None,
            received=channels[RECEIVED][..., 0] if RECEIVED in asked else None,
            observed=observed,
            last=last,
            times=times,
            entropy=channels[ENTROPY][..., 0] if ENTROPY in asked else None,
            queries=moments,
            scale=self.scale,
            turn=lambda x, positions: self.place(x, positions, seen),
        )

    def _placed(self, channels: dict[object, Tensor], index: Tensor, seen: int) -> dict[object, Tensor]:
        if not self.view.packed:
            return channels
        counts = (index >= 0).sum(2, keepdim=True)
        places = torch.arange(index.shape[2], device=index.device) + seen - counts
        return {**channels, TRUE: self.place(channels[RAW], places.clamp(min=0), seen).to(channels["v"].dtype)}

    def pieces(self, state: KeptState, q: Tensor, turned: Any) -> Iterator[Part]:
        """All that is kept."""
        keys, values = state.channels[TRUE], state.channels["v"]
        if not keys.shape[2]:
            return
        if state.thin is not None:
            thin = state.thin.repeat_interleave(q.shape[1] // keys.shape[1], 1)
            q = q.gather(3, thin[:, :, None].expand(-1, -1, q.shape[2], -1))
        mask = None
        if not state.full:
            there = (state.index >= 0).repeat_interleave(q.shape[1] // keys.shape[1], 1)
            mask = there[:, :, None].expand(-1, -1, q.shape[2], -1)
        yield (slice(0, q.shape[2]), *attend(q, keys, values, scale=self.scale, mask=mask, softcap=self.softcap))

    def credited(self, state: KeptState, run: Run[KeptState]) -> KeptState:
        """With what a run gave what is kept."""
        names = [name for name in ACCOUNTS if name in state.channels] if state.index.shape[2] else []
        keys = state.channels[TRUE]
        new: dict[object, Tensor] = {name: self.softmax.credited(name, state.channels[name], run, keys, None) for name in names}
        return replace(state, channels=state.channels | new)

    def bar(self, state: KeptState, run: Run[KeptState], window: Channels, oldest: int) -> Tensor | None:
        """The weight of the key that is the `Kept.top`-th of each query."""
        if ATTENDED not in self.view.signals:
            return None
        part = slice(state.upto - oldest, run.end - oldest)
        there = None if state.full else state.index >= 0
        parts = [(state.channels[TRUE], None, there), (window.view(TRUE)[:, :, part], state.upto, None)]
        return self.softmax.bar(run, parts, self.view.top)

    def changed(self, state: KeptState, change: Change) -> KeptState:
        """Every tensor changed."""
        channels = {name: change(tensor) for name, tensor in state.channels.items()}
        return replace(state, channels=channels, index=change(state.index), thin=None if state.thin is None else change(state.thin))


def _gathered(channels: dict[object, Tensor], index: Tensor, mask: Tensor) -> tuple[dict[object, Tensor], Tensor, bool]:
    """The tokens of the mask, oldest first: their channels, their index, and whether no head has fewer than the others."""
    counts = mask.sum(2)
    most = int(counts.max())
    order = mask.logical_not().to(torch.uint8).sort(dim=2, stable=True).indices[:, :, :most]
    kept = {name: tensor.gather(2, order[..., None].expand(*order.shape, tensor.shape[3])) for name, tensor in channels.items()}
    index = index.gather(2, order)
    full = bool((counts == most).all())
    if not full:
        index = index.masked_fill(torch.arange(most, device=index.device) >= counts[..., None], -1)
    return kept, index, full
