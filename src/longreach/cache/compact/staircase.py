"""Staircase: keys and values lose bits as they grow older, from exact to 8, 4 and 2 bits.

Paper: The Nature of Mathematical Modeling and Probabilistic Optimization Engineering in Generative AI, 2024, arXiv:2410.18441 (staircase
adaptive quantization, SAQ)
Cost: what is coded is decoded whenever it is attended to.   Limits: the window of the model is unchanged; old text blurs.
Differs from the paper: it names no widths and no official code is published. Steps of 8, 4 and 2 bits, and the codes, keys by channel
and values by token, are those of the framework it builds on (KIVI, arXiv:2402.02750).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.cache.base import CachePolicy
from longreach.cache.compact._bits import Bits, coarse
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Coded, View
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.core.sight import History, Sight


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
                keys[:, part] = coarse(keys[:, part], codec.bits, 1)
                values[:, part] = coarse(values[:, part], codec.bits, 2)
                if most is None or age < most:
                    break
                age -= most
        return Sight(tokens=[list(range(i + 1))] * len(history.k), keys=keys, values=values)


METHOD = Staircase
EXAMPLES = (
    Staircase(exact=8, eight=8, four=8, chunk_size=4),
    Staircase(exact=0, eight=6, chunk_size=3),
    Staircase(exact=5, eight=0, four=0, chunk_size=5),
)
NEUTRAL = (Staircase(exact=64),)
XFAIL = {"gradients": "rounding has none"}
BAD = ({"exact": -1}, {"eight": -1}, {"chunk_size": 0}, {"eight": None, "four": 4})
