"""NTK-aware scaling: a larger rotary base, which stretches low frequencies by the factor and leaves the highest alone.

Paper: NTK-Aware Scaled RoPE allows LLaMA models to have extended (8k+) context size without any fine-tuning and minimal perplexity
degradation, 2023, bloc97 (published online)
Cost: none at run time.   Limits: reaches somewhat less than factor times the window; some dimensions still leave their trained range.
Differs from the paper: nothing. On a checkpoint that was scaled before, each frequency is divided by what the larger base divides a plain
one by.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from longreach.core.errors import UnsupportedError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope


@dataclass(frozen=True, kw_only=True)
class Ntk(PositionsMethod):
    """Args: factor: stretch of the lowest frequency (>= 1)."""

    info: ClassVar = MethodInfo(
        title="NTK-Aware Scaled RoPE allows LLaMA models to have extended (8k+) context size without any fine-tuning "
        "and minimal perplexity degradation",
        paper="bloc97, 2023 (published online; analysed in arXiv:2309.00071, section 3.1)",
        exportable=True,
        claims=(Claim(text="8k tokens on LLaMA trained at 2k, with minimal perplexity degradation", metric="rise", times=4, at_most=0.05),),
    )
    factor: float

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Ntk", ...]:
        """Twice the factor: middle frequencies are stretched by less than it."""
        return (cls(factor=factor_to(2 * target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """Frequencies of the base theta * factor ** (d / (d - 2))."""
        return rope.inv_freq(scaled_theta(rope, self.factor)), rope.attention_factor

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """A plain rotary embedding with the larger base, which every reader of checkpoints can run, where the checkpoint's is plain."""
        if rope.scaling is not None:
            return super().rope_parameters(rope)
        return {"rope_type": "default", "rope_theta": scaled_theta(rope, self.factor)}


def scaled_theta(rope: Rope, factor: float) -> float:
    """The base at which the lowest frequency is exactly `factor` times lower.

    Raises: UnsupportedError where there is one frequency only, which is the same under any base.
    """
    if rope.dim == 2:
        why = "its only frequency is the same under any base"
        raise UnsupportedError("a larger base", "a rotary embedding of 2 dimensions", why, "choose linear, or yarn")
    return float(rope.theta * factor ** (rope.dim / (rope.dim - 2)))


def factor_for(rope: Rope, growth: float) -> float:
    """The factor under which the base grows by `growth`: the inverse of `scaled_theta`."""
    return float(growth ** ((rope.dim - 2) / rope.dim))


METHOD = Ntk
EXAMPLES = (Ntk(factor=4), Ntk(factor=1.5))
NEUTRAL = (Ntk(factor=1),)
BAD = ({"factor": 0.5},)
