"""Resonance RoPE: wavelengths rounded to whole tokens, so that fast dimensions come back to angles that they had in training.

Paper: Resonance RoPE: Improving Context Length Generalization of Large Language Models, 2024, arXiv:2403.00071
Cost: none at run time.   Limits: helps only dimensions that turn within the window; stack it on a method that handles the slow ones.
Differs from the paper: nothing. Stacked, it rounds what the method before it computes (`yarn:factor=8+resonance` is Resonance YaRN).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.method import Claim, Method, MethodInfo
from longreach.positions.base import PositionsMethod, PositionsWrapper, Rope


@dataclass(frozen=True, kw_only=True)
class Resonance(PositionsWrapper):
    """Takes no settings."""

    info: ClassVar = MethodInfo(
        title="Resonance RoPE: Improving Context Length Generalization of Large Language Models",
        paper="arXiv:2403.00071",
        exportable=True,
        claims=(
            Claim(text="better than YaRN alone at language modelling and long texts", metric="rise_gain", condition="tuned", at_least=0.0),
        ),
    )

    @classmethod
    def suggest_on(cls, other: Method) -> tuple["Resonance", ...]:
        """On methods that compute frequencies."""
        return (cls(),) if isinstance(other, PositionsMethod) and not isinstance(other, cls) else ()

    def wrap(self, inner: PositionsMethod, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """2 pi / round(2 pi / theta_i)."""
        scaled, attention_factor = inner.inv_freq(rope, seq_len)
        # In float64: float32 could not tell whole numbers of tokens apart from 16 million on.
        return (2 * math.pi / (2 * math.pi / scaled.double()).round()).float(), attention_factor


METHOD = Resonance
EXAMPLES = (Resonance(),)
STACKS = ("yarn:factor=4+resonance", "dynamic_ntk:step=16+resonance")
NEUTRAL = ()
BAD = ()
