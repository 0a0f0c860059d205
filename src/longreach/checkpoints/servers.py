"""How to serve a checkpoint under a method with other people's servers: the exact options, or why there are none.

Sources: vLLM's documentation, "Context Extension"; llama.cpp's tools/server/README.md and tools/completion/README.md. What is known
here is what those programs can do, so a method is named only where one of them has options for that method alone.
"""

import copy
import json
import math
import shlex
from collections.abc import Callable, Iterable
from typing import Any

from transformers import PreTrainedConfig

from longreach.core.method import Method
from longreach.core.spec import stack_of, unparse
from longreach.engine.rope_config import FULL, with_rope
from longreach.positions.base import PositionsMethod, Rope, positions_of

_BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}  # what both servers take for yarn where nothing is said
_INTERLEAVED = ("cohere", "cohere2", "glm", "glm4")  # families that rotate neighbouring dimensions, which vLLM's longrope does not
_WITH_SECTIONS = ("default", "yarn")  # what vLLM runs where time, height and width have dimensions of their own


def server_settings(
    method: str | Method | Iterable[Method], rope: Rope, target: int, *, config: PreTrainedConfig | None = None
) -> dict[str, str]:
    """{"vllm": ..., "llama.cpp": ...}: the command that serves the checkpoint as it was before any export, or a sentence why none can.

    MODEL stands for the checkpoint. An exported folder takes the same options; they repeat what its config says.
    Args: rope: of the checkpoint. target: tokens to serve. config: the checkpoint's; needed where its rotary embedding is partial or
    differs between layer types.
    """
    stack = stack_of(method)
    positions = positions_of(stack) if all(isinstance(each, PositionsMethod) for each in stack) else None
    if positions is not None and (scaled := positions.rope_parameters(rope)) is not None:
        whole = scaled if config is None else with_rope(config, positions)
        nested = FULL in whole
        family = "" if config is None else config.get_text_config().model_type
        kind = scaled["rope_type"]
        factor = positions.inv_freq(rope, rope.trained_window)[1]
        cannot = (kind == "longrope" and family in _INTERLEAVED) or (rope.sections is not None and kind not in _WITH_SECTIONS)
        return {
            "vllm": f"vLLM does not run the rope type {kind} on {family or 'such'} models" if cannot else _vllm(whole, factor, target),
            "llama.cpp": "llama.cpp scales one rotary embedding and this model has several"
            if nested
            else _llama_cpp(whole, factor, target),
        }
    first = stack[0] if len(stack) == 1 else None
    own = _LLAMA_CPP_OWN.get(first.name()) if first is not None else None
    return {
        "vllm": f"vLLM has no option for {unparse(stack)}",
        "llama.cpp": own(first, target) if own is not None else f"llama.cpp has no option for {unparse(stack)}",
    }


def _vllm(whole: dict[str, Any], factor: float, target: int) -> str:
    """Args: factor: on cos and sin."""
    whole = copy.deepcopy(whole)
    scaled = whole.get(FULL, whole)
    if scaled["rope_type"] == "longrope":  # vLLM reads one factor on cos and sin for each length instead
        scaled["short_mscale"] = scaled["long_mscale"] = scaled.pop("attention_factor")
    elif scaled.get("mscale") or scaled.get("mscale_all_dim"):
        return "vLLM reads mscale in some families and not in others, so that no option is sure to mean the same"
    elif scaled["rope_type"] == "yarn":  # vLLM reads attn_factor instead, and multiplies its own value by it
        scaled.pop("attention_factor", None)
        if not math.isclose(share := factor / _usual_attention_factor(scaled), 1):
            scaled["attn_factor"] = share
    overrides: dict[str, Any] = {"rope_parameters": whole}
    if "factor" not in scaled or scaled["rope_type"] in ("llama3", "longrope"):  # elsewhere vLLM multiplies the window by `factor`
        overrides["max_position_embeddings"] = target
    return f"vllm serve MODEL --hf-overrides {shlex.quote(json.dumps(overrides))} --max-model-len {target}"


def _llama_cpp(scaled: dict[str, Any], factor: float, target: int) -> str:
    """Args: factor: on cos and sin."""
    command, kind = f"llama-server -m MODEL.gguf --ctx-size {target}", scaled["rope_type"]
    if kind == "default":
        return f"{command} --rope-freq-base {scaled['rope_theta']:.10g}"
    if kind == "longrope":
        return "llama.cpp takes longrope's factors from the GGUF file alone, where its converter writes them for this family"
    if kind not in ("linear", "yarn"):
        return f"llama.cpp has no option for the rope type {kind}"
    command += f" --rope-scaling {kind} --rope-scale {scaled['factor']:.10g}"
    if kind == "linear":
        return command
    if not math.isclose(factor, _usual_attention_factor(scaled)):
        return f"llama.cpp computes yarn's attention factor itself; attention_factor={factor:g} cannot be given"
    if scaled.get("truncate") is False:
        return "llama.cpp rounds the ends of yarn's ramp to whole dimensions, and those of this checkpoint are not (truncate=false)"
    command += f" --yarn-orig-ctx {scaled['original_max_position_embeddings']}"
    changed = [f" --yarn-{name.replace('_', '-')} {scaled[name]:.10g}" for name, usual in _BETAS.items() if scaled[name] != usual]
    return command + "".join(changed)


def _usual_attention_factor(scaled: dict[str, Any]) -> float:
    """What both servers compute for yarn."""
    return 0.1 * math.log(scaled["factor"]) + 1


def _self_extend(method: Any, target: int) -> str:
    """Self-Extend in llama.cpp: not in its server; the width must be a multiple of the group."""
    width = -(-method.neighbours // method.group) * method.group
    return f"llama-completion -m MODEL.gguf --ctx-size {target} --grp-attn-n {method.group} --grp-attn-w {width}"


# methods that llama.cpp has options for besides rotary scaling
_LLAMA_CPP_OWN: dict[str, Callable[[Any, int], str]] = {"self_extend": _self_extend}
