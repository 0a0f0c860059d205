"""Prepacking: prompts of different lengths are packed into few rows to be read, and each has its cache as a row of the batch's.

Paper: Prepacking: A Simple Method for Fast Prefilling and Increased Throughput in Large Language Models, 2024, arXiv:2404.09529
Cost: that of the rows, which are some percent longer than the prompts in them; attention within prompts alone.   Limits: those of
padding_free. Decoding is as fast as before.
Differs from the paper: attention is computed prompt by prompt, not over a row under a mask; the last token of a prompt is read with the
others; prompts are packed by first-fit decreasing; caches come out as the padded cache of the batch, which `generate` goes on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from longreach.attention.base import Packs
from longreach.core.bins import first_fit_decreasing
from longreach.core.method import MethodInfo, at_least


@dataclass(frozen=True, kw_only=True)
class Prepack(Packs):
    """Args: row_length: tokens that a row has room for (>= 1; default: the longest prompt, which is always given room)."""

    info: ClassVar = MethodInfo(
        title="Prepacking: A Simple Method for Fast Prefilling and Increased Throughput in Large Language Models", paper="arXiv:2404.09529"
    )
    row_length: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "row_length")

    def rows(self, lengths: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Rows filled by first-fit decreasing."""
        return first_fit_decreasing(lengths, max(self.row_length or 1, *lengths))


METHOD = Prepack
EXAMPLES = (Prepack(), Prepack(row_length=120), Prepack(row_length=1))
NEUTRAL = (Prepack(),)
BAD = ({"row_length": 0},)
