"""Padding-free reading: a padded batch runs through the whole model as one row of its real tokens.

Paper: ByteTransformer: A High-Performance Transformer Boosted for Variable-Length Inputs, 2022, arXiv:2210.03052
Cost: that of the real tokens; attention runs once for each length in the batch.   Limits: masks of four dimensions, padding inside a text
and attention weights as output are refused, and so are models whose tokens meet elsewhere than in attention, or in a pooled state that no
module of its own makes (ALBERT's). What goes on after a filled cache is read with its padding, as the model does it by itself.
Differs from the paper: the padding is out before the first layer and back behind the last, attention included, for encoders and decoders,
in training, too. The fused kernels are the model's own attention function, which is given texts of one length together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from longreach.attention.base import Packs
from longreach.core.method import MethodInfo


@dataclass(frozen=True, kw_only=True)
class PaddingFree(Packs):
    """No settings."""

    info: ClassVar = MethodInfo(
        title="ByteTransformer: A High-Performance Transformer Boosted for Variable-Length Inputs", paper="arXiv:2210.03052"
    )

    def rows(self, lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """All texts in one row."""
        return (tuple(range(len(lengths))),)


METHOD = PaddingFree
EXAMPLES = (PaddingFree(),)
NEUTRAL = (PaddingFree(),)
BAD = ()
