"""M-RoPE++: temporal dimensions kept, width interpolated, a ramp over height between them, for models that see.

Paper: GIRAFFE: Design Choices for Extending the Context Length of Visual Language Models, 2024, arXiv:2412.12735
Cost: none at run time.   Limits: made for tuning; its borders are those of the model's sections, wherever its window ends.
Differs from the paper: on models without sections (text only) the paper's shares 2 : 3 : 3 divide the dimensions. By default the authors'
code has NTK-aware frequencies for height and width in place of the ramp and the interpolation.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from torch import Tensor

from longreach.core.errors import UnsupportedError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope

_SHARES = (2, 3, 3)  # of the pairs of dimensions: temporal, height, width


@dataclass(frozen=True, kw_only=True)
class MRopePp(PositionsMethod):
    """Args: factor: target length over trained window (>= 1)."""

    info: ClassVar = MethodInfo(
        title="GIRAFFE: Design Choices for Extending the Context Length of Visual Language Models",
        paper="arXiv:2412.12735",
        exportable=True,
        claims=(
            Claim(text="better than PI and NTK-aware scaling on long videos", metric="over_linear_and_ntk", condition="tuned", at_most=0.0),
        ),
    )
    factor: float

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["MRopePp", ...]:
        """The paper's factor."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_d up to the last temporal pair a; theta_d / s from the last height pair b on; in between the share that is kept falls with
        the turns r_d from r_a to r_b, (1 / s + (1 - 1 / s) (r_d - r_b) / (r_a - r_b)) theta_d.
        """
        plain, (temporal, height) = rope.inv_freq(), self._borders(rope)
        first, last = plain[max(temporal - 1, 0)], plain[max(height - 1, 0)]  # turns are frequencies times a constant
        keep = ((plain - last) / (first - last)).clamp(0, 1) if first > last else (plain >= first).float()
        return plain * (keep + (1 - keep) / self.factor), rope.attention_factor

    def _borders(self, rope: Rope) -> tuple[int, int]:
        """Pairs of dimensions up to the end of time and of height."""
        sections = rope.sections or _SHARES
        if len(sections) != len(_SHARES):
            why = f"its rotary embedding has {len(sections)} sections"
            raise UnsupportedError(self.spec, "the model", why, "choose another positions method; this one is for time, height and width")
        ends = [end * (rope.dim // 2) // sum(sections) for end in accumulate(sections)]
        return ends[0], ends[1]


METHOD = MRopePp
EXAMPLES = (MRopePp(factor=4), MRopePp(factor=1.5))
NEUTRAL = (MRopePp(factor=1),)
BAD = ({"factor": 0.5},)
