"""What other programs make of the same config.json.

Sources: transformers 4's configs (`rope_theta`, `rope_scaling`); vLLM's `_get_and_verify_max_len`; llama.cpp's convert_hf_to_gguf.py.
"""

from dataclasses import dataclass
from typing import Any

from longreach.diagnosis.base import Patient
from longreach.diagnosis.stated import ORIGINAL, RENAMED, is_number

_NO_FACTOR = ("default", "longrope", "llama3")  # rope types by whose factor vLLM does not multiply the window


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a program takes. Args: base, rope_type, factor: of the full-attention layers. window: tokens it would serve."""

    base: Any = None
    rope_type: str = "default"
    factor: Any = None
    window: int | None = None

    def __str__(self) -> str:
        scaling = self.rope_type if not is_number(self.factor) else f"{self.rope_type}, factor {self.factor:g}"
        return f"base {self.base:.10g}, {'no scaling' if self.rope_type == 'default' else scaling}"


def transformers_4(patient: Patient) -> Reading | None:
    """What transformers 4 and programs built on it read; None where layer types differ, which each family spelt in its own way."""
    text = patient.text
    if set(patient.stated) != {None}:
        return None
    found = text.get("rope_scaling")
    scaling: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    used = patient.pairs[0][2].parameters.get("rope_theta")
    # The second is read by the families that have it, and by no other.
    base = text.get("rope_theta") or (used if text.get("rotary_emb_base") == used else None)
    return Reading(
        base=patient.used.default_theta if base is None else base,
        rope_type=patient.stated[None].rope_type if scaling else RENAMED.get(kind, kind),
        factor=scaling.get("factor"),
        window=patient.window,
    )


def vllm_window(patient: Patient) -> int | None:
    """The tokens that vLLM serves where it is not told."""
    if patient.window is None or not patient.pairs:
        return None
    if len(patient.pairs) > 1:
        return patient.window
    used = patient.pairs[0][2]
    if used.rope_type == "longrope":
        return int(patient.text.get(ORIGINAL) or patient.window)
    factor, start = used.parameters.get("factor"), used.parameters.get(ORIGINAL) if used.rope_type == "yarn" else patient.window
    if used.rope_type in _NO_FACTOR or not is_number(factor) or not is_number(start):
        return patient.window
    return int(start * factor)


def gguf_keys(patient: Patient) -> dict[str, Any]:
    """The keys, without the architecture's name before them, that llama.cpp's converter would write."""
    if not patient.pairs:
        return {}
    _, _, used = patient.pairs[0]
    parameters = used.parameters
    keys: dict[str, Any] = {"context_length": patient.window, "rope.freq_base": parameters.get("rope_theta")}
    if used.rope_type in ("linear", "yarn", "longrope"):
        keys["rope.scaling.type"] = used.rope_type
    if used.rope_type in ("linear", "yarn"):
        keys["rope.scaling.factor"] = parameters.get("factor")
    if used.rope_type == "yarn":
        keys["rope.scaling.original_context_length"] = parameters.get(ORIGINAL)
        for name, key in (("attention_factor", "attn_factor"), ("beta_fast", "beta_fast"), ("beta_slow", "beta_slow")):
            if parameters.get(name) is not None:
                keys[f"rope.scaling.yarn_{key}"] = parameters[name]
    return keys
