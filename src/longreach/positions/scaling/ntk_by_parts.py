"""NTK-by-parts: slow dimensions interpolated, fast ones kept, a ramp over their turns between, and attention as it was.

Paper: YaRN: Efficient Context Window Extension of Large Language Models, 2023, arXiv:2309.00071, section 3.2
Cost: none at run time.   Limits: attention grows flatter with the length, which yarn corrects; untuned it holds to a few windows.
Differs from the paper: nothing. The ramp is over turns, as the paper defines it; yarn follows the official code, whose ramp is over the
index of the dimension. On a checkpoint that has this ramp already (`llama3`), both are one scaling by the product of their factors. The
class of this name in the authors' repository is another form, with other ramps and NTK-aware frequencies between what is kept and what is
interpolated.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope
from longreach.positions.scaling._parts import as_llama3, by_parts, check_ramp


@dataclass(frozen=True, kw_only=True)
class NtkByParts(PositionsMethod):
    """Args: factor: target length over trained window (>= 1).

    alpha, beta: turns over the trained window below which a dimension is fully interpolated, above which it is kept (paper: 1 and 32).
    """

    info: ClassVar = MethodInfo(
        title="YaRN: Efficient Context Window Extension of Large Language Models",
        paper="arXiv:2309.00071",
        exportable=True,
        claims=(
            Claim(text="better than position interpolation and NTK-aware scaling", metric="over_linear_and_ntk", at_most=0.0),
            Claim(
                text="better than position interpolation and NTK-aware scaling",
                metric="over_linear_and_ntk",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )
    factor: float
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")
        check_ramp(self, "alpha", "beta")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["NtkByParts", ...]:
        """The paper's factor."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """(1 - ramp) * theta_i / factor + ramp * theta_i, the ramp over r = window * theta_i / (2 pi) from alpha to beta."""
        return by_parts(rope, self.factor, self.alpha, self.beta), rope.attention_factor

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' own `llama3`, the same ramp under other names, where the checkpoint was not scaled otherwise."""
        return as_llama3(rope, self.factor, self.alpha, self.beta) or super().rope_parameters(rope)


METHOD = NtkByParts
EXAMPLES = (NtkByParts(factor=4), NtkByParts(factor=8, alpha=2, beta=16))
NEUTRAL = (NtkByParts(factor=1),)
BAD = ({"factor": 0.5}, {"factor": 4, "alpha": 0}, {"factor": 4, "alpha": 32, "beta": 1})
