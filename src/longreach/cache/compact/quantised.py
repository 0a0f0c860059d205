"""KIVI: keys and values in a few bits, but for the last tokens: keys by channel, values by token.

Paper: KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache, 2024, arXiv:2402.02750
Cost: what is coded is decoded whenever it is attended to.   Limits: the window of the model is unchanged.
Differs from the paper: a token's values have one step and one least number, where the official code has them for every 32 channels; steps
and least numbers are rounded to float16 before numbers are coded by them. The last tokens are always exact, where in the official code keys
wait until there are as many, and are coded all at once. Reading is under the codes from the first token on, where the
official code reads a prompt whole and codes it then.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from longreach.cache.base import CachePolicy
from longreach.cache.compact._bits import Bits, coarse
from longreach.core.bands import Band, LayerContext
from longreach.core.errors import SpecError
from longreach.core.memory import Coded, View
from longreach.core.method import MethodInfo, at_least
from longreach.core.sight import History, Sight


@dataclass(frozen=True, kw_only=True)
class Quantised(CachePolicy):
    """Args: bits: of each number (1, 2, 4 or 8; paper: 2 and 4). exact: last tokens kept as they are (paper: 128). chunk_size: tokens coded
    together, over which a channel of the keys has its step (paper: 32).
    """

    info: ClassVar = MethodInfo(title="KIVI: A Tuning-Free Asymmetric 2bit Quantization for KV Cache", paper="arXiv:2402.02750")
    rounds: ClassVar[bool] = True
    bits: int = 4
    exact: int = 128
    chunk_size: int = 32

    def __post_init__(self) -> None:
        at_least(self, 0, "exact")
        at_least(self, 1, "chunk_size")
        if self.bits not in (1, 2, 4, 8):
            raise SpecError(f"quantised: bits={self.bits} must be 1, 2, 4 or 8, so that codes fill bytes")

    @property
    def _exact(self) -> int:
        """Chunks."""
        return -(-self.exact // self.chunk_size)

    def stores(self, layer: LayerContext) -> tuple[View, ...]:
        """The coded chunks, and the exact ones."""
        return (Coded(chunk=self.chunk_size, exact=self._exact, steps=((None, Bits(self.bits)),)), Band())

    def sight(self, i: int, history: History) -> Sight:
        """Every full chunk before the exact ones, coded."""
        tokens = torch.arange(history.k.shape[1])
        keys, values = history.rotated(history.k, tokens).clone(), history.v.clone()
        for chunk in range(max(0, i // self.chunk_size - self._exact)):
            part = slice(chunk * self.chunk_size, (chunk + 1) * self.chunk_size)
            keys[:, part], values[:, part] = coarse(keys[:, part], self.bits, 1), coarse(values[:, part], self.bits, 2)
        return Sight(tokens=[list(range(i + 1))] * len(history.k), keys=keys, values=values)


METHOD = Quantised
EXAMPLES = (Quantised(exact=8, chunk_size=4), Quantised(bits=2, exact=0, chunk_size=3), Quantised(bits=1, exact=5, chunk_size=5))
NEUTRAL = (Quantised(exact=64),)
XFAIL = {"gradients": "rounding has none"}
BAD = ({"bits": 3}, {"bits": 0}, {"exact": -1}, {"chunk_size": 0})
