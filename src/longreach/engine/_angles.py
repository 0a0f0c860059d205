"""cos and sin at the positions of the tokens of one forward pass, as the rotary embedding and the methods want them."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from longreach.core.bands import Blended, ByBlocks, PositionMap
from longreach.engine import rotation
from longreach.engine._text import split_tables
from longreach.engine.setup import Frequencies

# In float32 the product of position and frequency loses the angle little by little (6e-8 of the position): streams without end need better.
EXACT_FROM = 1 << 16
Epoch = tuple[int, ...] | None  # the text length that each row's frequencies, or bands, are for; None: they depend on none
Side = Literal["queries", "keys"]


@dataclass(frozen=True)
class Angles:
    """Of one layer.

    Args: rotary: the model's own module. frequencies: where a method gives them instead. decay: [R/2], see attention.base. endless: texts
    may have no end.
    """

    rotation: rotation.Rotation
    rotary: nn.Module
    frequencies: Frequencies | None
    decay: Tensor | None
    endless: bool

    def __call__(
        self, position: PositionMap, t: Tensor, epoch: Epoch, like: Tensor, end: int, offset: Tensor | None, side: Side
    ) -> tuple[Tensor, Tensor]:
        """For tokens at the indices `t` [B | 1, T]: [B | 1, T, R/2], or [B | 1, K, T, R/2] where each head has its own.

        end: tokens seen. offset: added to positions, where they have to be the model's own to the last bit.
        """
        if isinstance(position, ByBlocks):
            numbers, places = position(t).unbind(-1)
            return split_tables(position.share, *(self._at(at, epoch, like, end) for at in (places, numbers)))
        if not isinstance(position, Blended):
            positions = position(t) if offset is None else position(t) + offset
            cos, sin = self._at(positions, epoch, like, end)
            if self.decay is None:
                return cos, sin
            power = self.decay.to(like.device) ** (positions if side == "queries" else -positions)[..., None].float()
            return cos * power.to(cos), sin * power.to(sin)
        # A rotation is linear in its cos and sin: blended tables blend the rotated vectors.
        below, share = position.around(t)
        (cos, sin), (next_cos, next_sin) = (self._at(below + n, epoch, like, end) for n in (0, 1))
        share = share[..., None].to(cos)
        return torch.lerp(cos, next_cos, share), torch.lerp(sin, next_sin, share)

    def _at(self, positions: Tensor, epoch: Epoch, like: Tensor, end: int) -> tuple[Tensor, Tensor]:
        if epoch is None or self.frequencies is None:
            if self.endless and end > EXACT_FROM:
                return rotation.exact_angles(self.rotary, like, positions, self.rotation.layer_type, end)
            cos, sin = rotation.table_in_text(self.rotary, like, positions, self.rotation.layer_type, end)
            return self.rotation.angles(cos), self.rotation.angles(sin)
        found = [self.frequencies.inv_freq(length) for length in epoch]
        frequencies = torch.stack([f for f, _ in found]).to(like.device)[..., None, :]
        factors = torch.tensor([factor for _, factor in found], device=like.device).view(-1, *[1] * (frequencies.ndim - 1))
        angles = positions.view(positions.shape[0], *[1] * (frequencies.ndim - 3), -1, 1).float() * frequencies
        cos, sin = angles.cos() * factors, angles.sin() * factors
        if self.frequencies.mixture is not None:
            cos, sin = (table @ mix.to(table) for table, mix in zip((cos, sin), self.frequencies.mixture, strict=True))
        return cos.to(like.dtype), sin.to(like.dtype)
