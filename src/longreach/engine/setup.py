"""What the engine is told to run."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from longreach.attention.base import AttentionPolicy
from longreach.core.bands import FULL, LayerContext, View
from longreach.engine._text import TextReader


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the engine runs. bands, temperature: of a layer with full attention. policies: all that may add to it. keep_all: forget
    nothing. lengths, inv_freq: (length that the frequencies at index t are for [B | 1, T] -> same shape; that length -> inv_freq [R/2 or
    K, R/2] and factor), for positions that depend on the length or the head; fixed_length: there is but one length; mixture: of their cos
    and sin. text_length, bands_at: the same for bands that depend on the length. plain_inside: tokens up to which a row is left to the
    model's own attention function, for full bands only. text: finds the blocks of the text, for bands with split positions.
    """

    bands: Callable[[LayerContext], tuple[View, ...]]
    temperature: Callable[[Tensor, LayerContext], Tensor | None]
    policies: tuple[AttentionPolicy, ...] = ()
    keep_all: bool = False
    lengths: Callable[[Tensor], Tensor] | None = None
    inv_freq: Callable[[int], tuple[Tensor, float]] | None = None
    fixed_length: bool = False
    mixture: tuple[Tensor, Tensor] | None = None
    text_length: Callable[[Tensor, LayerContext], Tensor] | None = None
    bands_at: Callable[[LayerContext, int], tuple[View, ...]] | None = None
    plain_inside: int | None = None
    text: TextReader | None = None


FULL_SETUP = Setup(bands=lambda layer: FULL, temperature=lambda t, layer: None)
