"""Numbers in few bits, as KIVI codes them (arXiv:2402.02750): keys by channel, values by token."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class Bits:
    """x is about code * step + least, with codes of so many bits; a step and a least for each channel of a chunk's keys (over its tokens),
    and for each token of its values (over its channels), in float16.
    """

    bits: int

    def encode(self, x: Tensor, side: Literal["keys", "values"]) -> dict[str, Tensor]:
        """`step` and `least`, and `code`, uint8, packed along the dimension that these have: channels of keys, tokens of values."""
        dim = 2 if side == "keys" else 3
        x = x.detach().float().clamp(-_LARGEST, _LARGEST)
        least = x.amin(dim, keepdim=True).half()
        step = ((x.amax(dim, keepdim=True) - least.float()) / (2**self.bits - 1)).half()
        code = ((x - least.float()) / step.float().masked_fill(step == 0, 1)).round().clamp(0, 2**self.bits - 1)
        return {"code": self._packed(code.to(torch.uint8), -1 if side == "keys" else -2), "step": step, "least": least}

    def decode(self, code: dict[str, Tensor], side: Literal["keys", "values"]) -> Tensor:
        """float32."""
        dim = -1 if side == "keys" else -2
        whole = self._unpacked(code["code"], dim, code["step"].shape[dim])
        return whole * code["step"].float() + code["least"].float()

    def _packed(self, code: Tensor, dim: int) -> Tensor:
        several, code = 8 // self.bits, code.movedim(dim, -1)
        padded = torch.nn.functional.pad(code, (0, -code.shape[-1] % several)).unflatten(-1, (-1, several))
        return (padded << self._shifts(code)).sum(-1, dtype=torch.uint8).movedim(-1, dim).contiguous()

    def _unpacked(self, packed: Tensor, dim: int, size: int) -> Tensor:
        packed = packed.movedim(dim, -1)
        whole = ((packed[..., None] >> self._shifts(packed)) & (2**self.bits - 1)).flatten(-2)[..., :size]
        return whole.movedim(-1, dim).float()

    def _shifts(self, like: Tensor) -> Tensor:
        return torch.arange(8 // self.bits, device=like.device, dtype=torch.uint8) * self.bits


def coarse(x: Tensor, bits: int, dim: int) -> Tensor:
    """What a code of so many bits leaves of x [K, n, D], step and least along one dimension."""
    whole = x.float()
    least = whole.min(dim, keepdim=True).values.half().float()
    step = ((whole.max(dim, keepdim=True).values - least) / (2**bits - 1)).half().float()
    nearest = torch.where(step > 0, (whole - least) / step, torch.zeros(())).round().clamp(0, 2**bits - 1)
    return (nearest * step + least).to(x.dtype)
