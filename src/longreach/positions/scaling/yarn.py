"""YaRN: low frequencies interpolated, high ones kept, a ramp between, and sharper attention.

Paper: YaRN: Efficient Context Window Extension of Large Language Models, 2023, arXiv:2309.00071
Cost: none at run time.   Limits: untuned it holds to about 4 to 8 windows; short prompts lose a little.
Differs from the paper: nothing. On a checkpoint that was scaled before, the ramp goes by the wavelengths that it has and the window that
it was scaled to; on one with YaRN of the same betas, both are one YaRN of the product of their factors, which is exact.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.lengths import factor_to
from longreach.core.method import Claim, MethodInfo, at_least
from longreach.positions.base import PositionsMethod, Rope

_KEPT = ("truncate", "mscale", "mscale_all_dim")  # what a yarn in a checkpoint's config may say besides, and holds for both


@dataclass(frozen=True, kw_only=True)
class Yarn(PositionsMethod):
    """Args: factor: target length over trained window (>= 1).

    beta_fast, beta_slow: turns over the trained window above which a dimension is kept, below which it is fully interpolated
    (paper: 32 and 1). attention_factor: factor on cos and sin (paper: 0.1 ln(factor) + 1).
    """

    info: ClassVar = MethodInfo(
        title="YaRN: Efficient Context Window Extension of Large Language Models",
        paper="arXiv:2309.00071",
        exportable=True,
        claims=(
            Claim(text="perplexity stays low to 2 windows", metric="rise", times=2, at_most=0.05),
            Claim(
                text="state of the art after tuning on 0.1 % of the pretraining data",
                metric="over_linear_and_ntk",
                condition="tuned",
                at_most=0.0,
            ),
        ),
    )
    factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "factor")
        if not self.beta_fast > self.beta_slow > 0:
            raise SpecError(f"yarn: beta_fast={self.beta_fast:g} must be above beta_slow={self.beta_slow:g}, and both above 0")
        if self.attention_factor is not None and not self.attention_factor > 0:
            raise SpecError(f"yarn: attention_factor={self.attention_factor:g} must be above 0")

    @classmethod
    def suggest(cls, trained_window: int, target: int) -> tuple["Yarn", ...]:
        """The paper's factor."""
        return (cls(factor=factor_to(target, trained_window)),)

    def inv_freq(self, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """Ramp over the dimensions: 1 keeps theta_i, 0 gives theta_i / factor."""
        if self.factor == 1:
            return rope.inv_freq(), self._attention_factor(rope)
        before, factor = self._merged(rope)
        low, high = _dimension(before, self.beta_fast), _dimension(before, self.beta_slow)
        if before is rope or rope.scaling is None or rope.scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rope.dim - 1)
        ramp = (_dimensions(before) - low) / (high - low if high > low else 0.001)
        keep = 1 - ramp.clamp(0, 1)
        # In the order in which transformers rounds, so that an export is the same to the last bit.
        return 1.0 / (factor * before.powers()) * (1 - keep) + before.inv_freq() * keep, self._attention_factor(rope)

    def rope_parameters(self, rope: Rope) -> dict[str, Any] | None:
        """Transformers' own `yarn` with values written out, so that no reader has to guess one, unless the checkpoint was scaled otherwise.

        The usual attention factor is left to the reader: GGUF converters take a stated one as coming on top of it.
        """
        before, factor = self._merged(rope)
        if before.scaling is not None:
            return super().rope_parameters(rope)
        kept = {} if rope.scaling is None else {name: value for name in _KEPT if (value := rope.scaling.get(name)) is not None}
        usual = self.attention_factor is None and (rope.scaling is None or rope.scaling.get("attention_factor") is None)
        stated = {} if usual else {"attention_factor": self._attention_factor(rope)}
        return {
            "rope_type": "yarn",
            "rope_theta": rope.theta,
            "factor": factor,
            "original_max_position_embeddings": before.trained_window,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            **kept,
            **stated,
        }

    def _merged(self, rope: Rope) -> tuple[Rope, float]:
        return rope.merged("yarn", self.factor, beta_fast=self.beta_fast, beta_slow=self.beta_slow)

    def _attention_factor(self, rope: Rope) -> float:
        """The checkpoint's own times this one's; two of yarn have that of their product, as far as the checkpoint has the usual one."""
        if self.attention_factor is not None:
            return self.attention_factor * rope.attention_factor
        before, factor = self._merged(rope)
        if rope.scaling is None or before is rope:
            return _usual(factor) * rope.attention_factor
        top, bottom = (rope.scaling.get(name) for name in ("mscale", "mscale_all_dim"))
        usual, had = (
            _usual(each, top) / _usual(each, bottom) if top and bottom else _usual(each) for each in (factor, factor / self.factor)
        )
        return usual if rope.scaling.get("attention_factor") is None else rope.attention_factor * usual / had


def _usual(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1.0


def _dimension(rope: Rope, turns: float) -> float:
    """The dimension pair (a fraction) that turns so often over the trained window, of a plain embedding with the rope's base."""
    return rope.dim * math.log(rope.trained_window / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


def _dimensions(rope: Rope) -> Tensor:
    """[dim / 2] the dimension pair (a fraction) of a plain embedding that has each frequency."""
    if rope.scaling is None:
        return torch.arange(rope.dim // 2, dtype=torch.float32)
    return (-rope.dim * rope.inv_freq().double().log() / (2 * math.log(rope.theta))).float()


METHOD = Yarn
EXAMPLES = (Yarn(factor=4), Yarn(factor=8, beta_fast=16, attention_factor=1.0))
NEUTRAL = (Yarn(factor=1),)
BAD = ({"factor": 0.5}, {"factor": 4, "beta_fast": 1, "beta_slow": 2}, {"factor": 4, "attention_factor": 0})
