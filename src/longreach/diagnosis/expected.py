"""Rotary frequencies from their definitions, in float64: what a reading of config.json should lead to.

Sources: arXiv:2104.09864 (RoPE), arXiv:2306.15595 (linear), arXiv:2309.00071 (yarn), arXiv:2402.13753 (longrope); Llama 3.1's scaling as
its authors published it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from longreach.diagnosis.stated import ORIGINAL


def frequencies(parameters: Mapping[str, Any], dim: int, window: int | None) -> tuple[Tensor, float] | None:
    """([dim / 2] radians a token, factor on cos and sin) for a short context, or None for rope types that are not known here.

    Raises: KeyError, TypeError, ValueError where a value is missing or of a wrong kind.
    """
    base = float(parameters["rope_theta"])
    inv_freq = base ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    match parameters["rope_type"]:
        case "default" | "dynamic":  # dynamic changes nothing inside the window
            return inv_freq, 1.0
        case "linear":
            return inv_freq / float(parameters["factor"]), 1.0
        case "yarn":
            return _yarn(parameters, inv_freq, dim, base, window)
        case "llama3":
            return _llama3(parameters, inv_freq), 1.0
        case "longrope":
            return _longrope(parameters, inv_freq, window)
    return None


def attention_factor(parameters: Mapping[str, Any], factor: float) -> float:
    """YaRN's factor on cos and sin: as stated, else from `mscale` and `mscale_all_dim`, else 0.1 ln(factor) + 1."""
    stated = parameters.get("attention_factor")
    if stated is not None:
        return float(stated)
    top, bottom = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return _mscale(factor, top) / _mscale(factor, bottom) if top and bottom else _mscale(factor)


def _mscale(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _yarn(parameters: Mapping[str, Any], inv_freq: Tensor, dim: int, base: float, window: int | None) -> tuple[Tensor, float]:
    original = parameters.get(ORIGINAL) or window or 0
    factor = float(parameters.get("factor") or (window or 0) / original)

    def dimension(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(parameters.get("beta_fast") or 32.0), dimension(parameters.get("beta_slow") or 1.0)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    ramp = (torch.arange(dim // 2, dtype=torch.float64) - low) / (high - low if high != low else 0.001)
    keep = 1 - ramp.clamp(0, 1)
    return inv_freq * keep + inv_freq / factor * (1 - keep), attention_factor(parameters, factor)


def _llama3(parameters: Mapping[str, Any], inv_freq: Tensor) -> Tensor:
    factor, low, high = (float(parameters[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(parameters[ORIGINAL]) * inv_freq / (2 * math.pi)  # over the original window
    keep = ((turns - low) / (high - low)).clamp(0, 1)
    return inv_freq * keep + inv_freq / factor * (1 - keep)


def _longrope(parameters: Mapping[str, Any], inv_freq: Tensor, window: int | None) -> tuple[Tensor, float]:
    original = float(parameters[ORIGINAL])
    factor = float(parameters.get("factor") or (window or original) / original)
    stated = parameters.get("attention_factor")
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    short = torch.tensor(parameters["short_factor"], dtype=torch.float64)
    return inv_freq / short, usual if stated is None else float(stated)
