"""Staircase: keys and values lose bits as they grow older, from exact to 8, 4 and 2 bits.

Paper: The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI, 2024, arXiv:2410.18441 (staircase
adaptive quantization, SAQ)
Cost: what is coded is decoded whenever it is attended to.   Limits: the window of the model is unchanged; old text blurs.
Differs from the paper: it names no widths and no official code is published. Steps of 8, 4 and 2 bits, and the codes, keys by channel
and values by token, are those of the framework it builds on (KIVI, arXiv:2402.02750).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from longreach.cache.base import CachePolicy, History, Sight
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Coded, View
from longreach.core.method import Claim, MethodInfo, at_least

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


@dataclass(frozen=True, kw_only=True)
class Staircase(CachePolicy):
    """Args: exact: last tokens kept as they are. eight, four: tokens after those in 8 and in 4 bits; all older ones in 2 (None: no end to
    this step). chunk_size: tokens coded together; lengths of steps are rounded up to whole chunks.
    """

    info: ClassVar = MethodInfo(
        title="The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI",
        paper="arXiv:2410.18441",
        claims=(Claim(text="gradual degradation: cost is saved at reasonable quality", metric="rise", at_most=0.05),),
    )
    rounds: ClassVar[bool] = True
    exact: int = 128
    eight: int | None = 512
    four: int | None = None
    chunk_size: int = 32

    def __post_init__(self) -> None:
        at_least(self, 0, "exact", "eight", "four")
        at_least(self, 1, "chunk_size")
        if self.eight is None and self.four is not None:
            raise SpecError(f"staircase: four={self.four} is never reached, for eight=none has no end")

    def _steps(self) -> list[tuple[int | None, Bits]]:
        """(chunks, codec), nearest first; what comes after an endless step is left out, and so are empty ones."""
        steps: list[tuple[int | None, Bits]] = []
        for tokens, bits in ((self.eight, 8), (self.four, 4), (None, 2)):
            if tokens != 0:
                steps.append((None if tokens is None else -(-tokens // self.chunk_size), Bits(bits)))
            if tokens is None:
                break
        return steps

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The coded chunks, and the exact ones."""
        return (Coded(chunk=self.chunk_size, exact=-(-self.exact // self.chunk_size), steps=tuple(self._steps())), Band())

    def sight(self, i: int, history: History) -> Sight:
        """Every chunk coded as often as it went down a step."""
        tokens = torch.arange(history.k.shape[1])
        keys, values = history.rotated(history.k, tokens).clone(), history.v.clone()
        size, exact = self.chunk_size, -(-self.exact // self.chunk_size)
        chunks = i // size
        for chunk in range(max(0, chunks - exact)):
            part, age = slice(chunk * size, (chunk + 1) * size), chunks - exact - 1 - chunk
            for most, codec in self._steps():
                keys[:, part] = _coarse(keys[:, part], codec.bits, 1)
                values[:, part] = _coarse(values[:, part], codec.bits, 2)
                if most is None or age < most:
                    break
                age -= most
        return Sight(tokens=[list(range(i + 1))] * len(history.k), keys=keys, values=values)


def _coarse(x: Tensor, bits: int, dim: int) -> Tensor:
    """What a code of so many bits leaves of x [K, n, D], step and least along one dimension."""
    whole = x.float()
    least = whole.min(dim, keepdim=True).values.half().float()
    step = ((whole.max(dim, keepdim=True).values - least) / (2**bits - 1)).half().float()
    nearest = torch.where(step > 0, (whole - least) / step, torch.zeros(())).round().clamp(0, 2**bits - 1)
    return (nearest * step + least).to(x.dtype)


METHOD = Staircase
EXAMPLES = (
    Staircase(exact=8, eight=8, four=8, chunk_size=4),
    Staircase(exact=0, eight=None, chunk_size=3),
    Staircase(exact=5, eight=0, four=0, chunk_size=5),
)
NEUTRAL = (Staircase(exact=64),)
XFAIL = {"gradients": "rounding has none"}
BAD = ({"exact": -1}, {"eight": -1}, {"chunk_size": 0}, {"eight": None, "four": 4})
