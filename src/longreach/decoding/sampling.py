"""How the next token is chosen; settings are checked without loading a library."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from longreach.core.errors import InputError

if TYPE_CHECKING:
    from transformers import LogitsProcessorList


_SEEDS = 2**63  # as many as torch's generators take


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen. The default is greedy: always the likeliest.

    Args: temperature: 0 is greedy; above, logits are divided by it. top_k: only so many likeliest tokens. top_p: only the likeliest
    tokens that together reach this probability. seed: makes sampling repeatable. Checkpoints' own sampling defaults are not used.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:  # also refuses nan
            raise InputError(f"temperature={self.temperature:g} must be a number, at least 0")
        if self.top_k is not None and (self.top_k < 1 or self.top_k != int(self.top_k)):
            raise InputError(f"top_k={self.top_k} must be a whole number, at least 1")
        if self.seed is not None and not 0 <= self.seed < _SEEDS:
            raise InputError(f"seed={self.seed} must be at least 0 and below 2 to the power of 63")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p:g} must be above 0 and at most 1")
        useless = [name for name in ("top_k", "top_p", "seed") if getattr(self, name) is not None]
        if self.temperature == 0 and useless:
            raise InputError(f"{useless[0]} has no effect on greedy decoding; give a temperature above 0")

    def warpers(self) -> "LogitsProcessorList":
        """Transformers' own, in the order in which its `generate` runs them."""
        from transformers import LogitsProcessorList
        from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        chosen: list[Any] = [TemperatureLogitsWarper(float(self.temperature))] if self.temperature not in (0, 1) else []
        chosen += [TopKLogitsWarper(self.top_k)] if self.top_k is not None else []
        chosen += [TopPLogitsWarper(float(self.top_p))] if self.top_p is not None and self.top_p < 1 else []
        return LogitsProcessorList(chosen)


GREEDY = Sampling()
