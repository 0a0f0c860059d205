"""Rotates the vectors of one layer to their positions."""

from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.core.bands import TRUE, ByBlocks, PositionMap
from longreach.engine._angles import Angles, Epoch, Side
from longreach.engine._store import BandLayer
from longreach.engine._stream import Step
from longreach.engine.rotation import Rotation


@dataclass(frozen=True, kw_only=True)
class Turning:
    """Of one layer; without a rotation vectors stay as they are.

    Args: by_row: the method counts from each row's first token. dynamic: frequencies are a method's. from_offset: positions are counted as
    the model counts them, so that what stays as it was is the same to the last bit.
    """

    rotation: Rotation | None
    angles: Angles | None
    by_row: bool
    dynamic: bool
    from_offset: bool

    def rotate(self, x: Tensor, step: Step, position: PositionMap, epoch: Epoch, side: Side, begin: int = 0) -> Tensor:
        """x [B, H, n, D], the new tokens from `begin` on, rotated to their positions."""
        if self.rotation is None or self.angles is None:
            return x
        decays = self.angles.decay is not None
        key = (self.rotation.layer_type, position, epoch if self.dynamic else None, side if decays else None, begin, x.shape[2])
        if key not in step.memo:
            # Where a method counts in chunks, so do its positions: the two may not drift apart at padding inside a row.
            t = step.memo["blocks"] if isinstance(position, ByBlocks) else step.places if self.by_row and not step.skips else step.t
            step.memo[key] = self._tables(position, t[:, begin : begin + x.shape[2]], epoch, x, step, side)
        return self.rotation(x, *step.memo[key])

    def turn(self, x: Tensor, position: PositionMap, first: int, step: Step) -> Tensor:
        """x [B, H, n, D], tokens at the indices from `first` on (padding before index 0), rotated to their positions."""
        if self.rotation is None:
            return x
        key = ("turn", self.rotation.layer_type, position, first, x.shape[2])
        if key not in step.memo:
            t = torch.arange(first, first + x.shape[2], device=x.device).clamp(min=0)
            step.memo[key] = self._tables(position, t[None], None, x, step, "keys")
        return self.rotation(x, *step.memo[key])

    def place(self, x: Tensor, positions: Tensor, end: int) -> Tensor:
        """x [B, K, n, D], each at a position of its own, [B, K, n]. Args: end: tokens seen."""
        if self.rotation is None or self.angles is None:
            return x
        tables = self.angles(TRUE, positions.flatten(0, 1), None, x, end, None, "keys")
        cos, sin = (table.view(*positions.shape, -1) for table in tables)
        return self.rotation(x, cos, sin)

    def turn_to(self, x: Tensor, positions: Tensor, end: int) -> Tensor:
        """x [B, H, n, D] at positions [n], or [B, H, n]. Args: end: tokens seen."""
        if positions.ndim > 1 or self.rotation is None or self.angles is None:
            return self.place(x, positions, end)
        return self.rotation(x, *self.angles(TRUE, positions[None], None, x, end, None, "keys"))

    def rerotate(self, layer: BandLayer, step: Step, epoch: Epoch, like: Tensor) -> None:
        """Bring all kept keys under the frequencies of `epoch`."""
        assert self.rotation is not None and layer.stream.indices is not None  # noqa: S101 - dynamic layers have both
        for position in layer.plan.maps:
            key = ("all", position, epoch)
            if key not in step.memo:
                step.memo[key] = self._tables(position, layer.stream.indices, epoch, like, step, "keys")
            layer.recent.replace(position, self.rotation(layer.recent.view("raw"), *step.memo[key]))
        layer.epoch, layer.mixed = epoch, False

    def keys(self, layer: BandLayer, step: Step, position: PositionMap, before: int | None) -> Tensor:
        """The kept keys under a map [B, K, n, D]: written so, or, where that changes with the text, made of the unrotated ones.

        before: how many of a row's first tokens are asked for; None: all.
        """
        if position in layer.plan.maps:
            return layer.recent.view(position)
        count = min(step.end, step.start_min + (step.end if before is None else before))
        raw = layer.recent.view("raw")
        known, done, copy = layer.placed.get(layer.index, (None, 0, raw[:, :, :0]))
        needs_grad = torch.is_grad_enabled() and raw.requires_grad  # writing in place would break gradients
        if known != position or needs_grad:
            done = 0
        if done < count:
            new = self.turn(raw[:, :, done:count], position, done - step.start_min, step).to(layer.recent.view("v").dtype)
            if needs_grad:
                return new
            if done == 0 or count > copy.shape[2]:
                grown = new.new_empty(*raw.shape[:2], int(count * 1.5), raw.shape[3])
                grown[:, :, :done] = copy[:, :, :done]
                copy = grown
            copy[:, :, done:count] = new
            layer.placed[layer.index] = (position, count, copy)
        return copy[:, :, :count]

    def _tables(self, position: PositionMap, t: Tensor, epoch: Epoch, like: Tensor, step: Step, side: Side) -> tuple[Tensor, Tensor]:
        assert self.angles is not None  # noqa: S101 - callers checked
        return self.angles(position, t, epoch, like, step.end, step.offset if self.from_offset else None, side)
