"""Interpolation by parts: a ramp over how often a dimension turns within the trained window."""

import math
from typing import Any

import torch
from torch import Tensor

from longreach.core.errors import SpecError
from longreach.core.method import Method, format_value
from longreach.positions.base import Rope


def check_ramp(method: Method, low: str, high: str) -> None:
    """Raise SpecError unless 0 < low < high, two settings of `method`."""
    begin, end = getattr(method, low), getattr(method, high)
    if not 0 < begin < end < math.inf:
        raise SpecError(f"{method.name()}: {high}={format_value(end)} must be above {low}={format_value(begin)}, and both above 0")


def by_parts(rope: Rope, factor: float, low: float, high: float) -> Tensor:
    """[dim / 2] frequencies: kept from `high` turns within the trained window on, divided by `factor` up to `low`, a mixture between."""
    if factor == 1:
        return rope.inv_freq()
    before, factor = _merged(rope, factor, low, high)
    plain, window = before.inv_freq(), before.trained_window
    # In the order in which transformers rounds, so that an export is the same to the last bit.
    wavelength = 2 * math.pi / plain
    keep = (window / wavelength - low) / (high - low)
    slow, fast = wavelength > window / low, wavelength < window / high
    return torch.where(slow, plain / factor, torch.where(fast, plain, (1 - keep) * plain / factor + keep * plain))


def as_llama3(rope: Rope, factor: float, low: float, high: float) -> dict[str, Any] | None:
    """The same as transformers' `llama3`, whose ramp is over the same turns; None on a checkpoint that was scaled otherwise."""
    before, factor = _merged(rope, factor, low, high)
    if before.scaling is not None:
        return None
    return {
        "rope_type": "llama3",
        "rope_theta": rope.theta,
        "factor": float(factor),
        "low_freq_factor": float(low),
        "high_freq_factor": float(high),
        "original_max_position_embeddings": before.trained_window,
    }


def _merged(rope: Rope, factor: float, low: float, high: float) -> tuple[Rope, float]:
    return rope.merged("llama3", factor, low_freq_factor=low, high_freq_factor=high)
