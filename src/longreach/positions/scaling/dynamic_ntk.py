"""Dynamic NTK: the NTK-aware base grows with the tokens seen, and all keys, old ones too, always stand under the current base.

Paper: Dynamically Scaled RoPE further increases performance of long context LLaMA with zero fine-tuning, 2023, emozilla (published online)
Cost: keys are kept unrotated and rotated anew once every `step` tokens.   Limits: untuned quality falls beyond a few windows.
Differs from the paper: the length is rounded up to a multiple of `step`, so that every query's base depends on its own position alone:
prefill in chunks, in one piece and decoding give the same result.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope
from longreach.positions.scaling.ntk import scaled_theta


@dataclass(frozen=True, kw_only=True)
class DynamicNtk(PositionsMethod):
    """Args: factor: how fast the base grows (>= 1; 1 scales by just the length over the window). step: tokens between changes (>= 1)."""

    info: ClassVar = MethodInfo(
        title="Dynamically Scaled RoPE further increases performance of long context LLaMA with zero fine-tuning",
        paper="emozilla, 2023 (published online; analysed in arXiv:2309.00071, section 3.3)",
        length_dependent=True,
        plain_inside=True,
        changes_positions=True,
        claims=(Claim(text="no blow-up of the perplexity beyond the window, where static scaling has one", metric="rise", at_most=0.05),),
    )
    factor: float = 1.0
    step: int = 256

    def __post_init__(self) -> None:
        at_least(self, 1, "factor", "step")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["DynamicNtk", ...]:
        """Growth by twice the length over the window: middle frequencies are stretched by less than the base's factor."""
        return (cls(factor=2.0),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """Frequencies of the base theta * (factor * L / window - (factor - 1)) ** (d / (d - 2)); the checkpoint's own up to the window."""
        growth = self.factor * max(seq_len, rope.trained_window) / rope.trained_window - (self.factor - 1)
        theta = scaled_theta(rope, growth)
        return rope.own(seq_len) if seq_len <= rope.trained_window else (rope.inv_freq(theta), rope.attention_factor)

    def length_step(self, rope: Rope) -> int:
        """The setting `step`."""
        return self.step


METHOD = DynamicNtk
EXAMPLES = (DynamicNtk(), DynamicNtk(factor=2, step=16))
NEUTRAL = (DynamicNtk(), DynamicNtk(factor=2, step=16))
BAD = ({"factor": 0.5}, {"step": 0})
