"""What a GGUF file says of positions, written into a config: transformers reads the base from such files, and not the scaling.

Sources: llama.cpp's convert_hf_to_gguf.py, which writes these keys and tensors, and src/llama-model.cpp, which reads them.
"""

import math
import struct
from typing import Any

from transformers import PreTrainedConfig

from longreach.checkpoints.gguf_header import GGUFHeader
from longreach.core.errors import CheckpointError
from longreach.engine.rope_config import FULL

FREQUENCIES, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
_SLIDING = "sliding_attention"
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # of Llama 3.1 and later
_UNSCALED = ("rope_theta", "partial_rotary_factor")  # belong to the model, not to its scaling
_TOLERANCE = 1e-4
_F32 = 0
_USUAL = {"yarn_ext_factor": 1.0, "yarn_log_multiplier": 0.0, "attn_factor": 1.0}  # other values mean what no rope type means
_YARN = {"yarn_attn_factor": "attention_factor", "yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def state_positions(config: PreTrainedConfig, header: GGUFHeader, label: str) -> None:
    """Write into the config what transformers leaves out: the scaling and width of the rotary embedding, and the sliding window.

    Raises: CheckpointError for a scaling that transformers has no rope type for.
    """
    text: Any = config.get_text_config()
    whole = getattr(text, "rope_parameters", None)
    scaling = _scaling(header, label)
    if scaling and not whole:
        raise CheckpointError(f"{label} scales a rotary embedding ({scaling['rope_type']}), and {text.model_type} models have none")
    if whole:
        nested = any(isinstance(value, dict) for value in whole.values())
        changed = dict(whole)
        if scaling:  # in place of what transformers may have read
            before = whole[FULL] if nested else whole
            found = {**{key: before[key] for key in _UNSCALED if key in before}, **scaling}
            changed = {**whole, FULL: found} if nested else found
        if nested and _SLIDING in whole and (base := header.get("rope.freq_base_swa")):
            changed[_SLIDING] = {**whole[_SLIDING], "rope_theta": base}
        if not nested:
            if getattr(text, "head_dim", None):
                text.head_dim = header.get("attention.key_length") or text.head_dim
            changed |= _width(header, text, label)
        text.rope_parameters = changed
        if "original_max_position_embeddings" in changed and hasattr(text, "original_max_position_embeddings"):  # Phi-3 prefers it
            text.original_max_position_embeddings = changed["original_max_position_embeddings"]
    window = header.get("attention.sliding_window")
    if window and getattr(text, "sliding_window", window) is None and not hasattr(text, "use_sliding_window"):
        text.sliding_window = window


def _scaling(header: GGUFHeader, label: str) -> dict[str, Any]:
    """The file's scaling as `rope_parameters`; empty where there is none."""
    window = header.get("context_length")
    original = header.get("rope.scaling.original_context_length") or window
    if LONG in header.tensors and SHORT in header.tensors:
        factors = {"long_factor": _numbers(header, LONG, label), "short_factor": _numbers(header, SHORT, label)}
        attention = header.get("rope.scaling.attn_factor")
        stated = {"attention_factor": attention} if attention else {}
        return {"rope_type": "longrope", **factors, "original_max_position_embeddings": original, "factor": window / original, **stated}
    factor = header.get("rope.scaling.factor") or header.get("rope.scale_linear")
    kind = header.get("rope.scaling.type") or "linear"  # as llama.cpp does
    plain = kind == "none" or not factor or factor == 1
    if FREQUENCIES in header.tensors:
        if not plain:
            raise CheckpointError(f"{label} has its rotary embedding scaled twice, by {kind} and by {FREQUENCIES}; take one of them out")
        return _by_frequency(_numbers(header, FREQUENCIES, label), header)
    if plain:
        return {}
    if kind == "linear":
        return {"rope_type": kind, "factor": factor}
    beyond = [key for key, usual in _USUAL.items() if header.get(f"rope.scaling.{key}") not in (None, usual)]
    if kind != "yarn" or beyond:
        what = f"{kind} with {beyond[0]}" if beyond else kind
        why = f"has its rotary embedding scaled by {what}, for which transformers has no rope type"
        raise CheckpointError(f"{label} {why}; give the folder of the original checkpoint")
    extra = {name: header.get(f"rope.scaling.{key}") for key, name in _YARN.items()}
    given = {name: value for name, value in extra.items() if value is not None}
    return {"rope_type": kind, "factor": factor, "original_max_position_embeddings": original, **given}


def _by_frequency(factors: list[float], header: GGUFHeader) -> dict[str, Any]:
    """Llama 3's scaling where it explains the divisors of all frequencies, else longrope with the same divisors at every length."""
    if set(factors) == {1.0}:
        return {}
    base, width = header.get("rope.freq_base") or 10_000.0, 2 * len(factors)
    found = {"rope_type": "llama3", "factor": round(max(factors), 4), **_LLAMA3}
    expected = [_llama3(2 * math.pi * base ** (2 * pair / width), found) for pair in range(len(factors))]
    if all(math.isclose(one, other, rel_tol=_TOLERANCE) for one, other in zip(factors, expected, strict=True)):
        return found
    window = header.get("context_length")
    whole = {"long_factor": factors, "short_factor": factors, "original_max_position_embeddings": window, "factor": 1.0}
    return {"rope_type": "longrope", **whole, "attention_factor": 1.0}


def _llama3(wavelength: float, settings: dict[str, Any]) -> float:
    """What the frequency of a wavelength in tokens is divided by."""
    turns = settings["original_max_position_embeddings"] / wavelength
    low, high, factor = settings["low_freq_factor"], settings["high_freq_factor"], settings["factor"]
    if turns > high:
        return 1.0
    if turns < low:
        return float(factor)
    share = (turns - low) / (high - low)
    return float(1 / ((1 - share) / factor + share))


def _numbers(header: GGUFHeader, name: str, label: str) -> list[float]:
    tensor = header.tensors[name]
    if tensor.kind != _F32:
        raise CheckpointError(f"{label} is corrupt: its {name} is not in float32")
    with header.path.open("rb") as stream:
        stream.seek(tensor.offset)
        return list(struct.unpack(f"<{tensor.elements}f", stream.read(tensor.size)))


def _width(header: GGUFHeader, text: Any, label: str) -> dict[str, float]:
    """The share of each head that is rotated, where the file has another one than the config. Raises: CheckpointError where the family has
    no such setting.
    """
    width = header.get("rope.dimension_count")
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    share = text.rope_parameters.get("partial_rotary_factor")
    if not width or width == int(head * (share or 1.0)):
        return {}
    if share is None:
        raise CheckpointError(
            f"{label} rotates {width} of {head} dimensions, which transformers does not know of {text.model_type} models; "
            "give the folder of the original checkpoint"
        )
    return {"partial_rotary_factor": width / head}
