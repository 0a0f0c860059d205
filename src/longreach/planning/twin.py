"""A small twin of a model: the same layers, cache and code, with all sizes reduced that bytes of a cache only multiply by."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from longreach.engine.contexts import StandIn
from longreach.engine.window import stated_window

_SMALL = {"intermediate_size": 16, "moe_intermediate_size": 16, "ffn_dim": 16, "vocab_size": 64, "num_local_experts": 2, "num_experts": 2}


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Of a model. Args: layers: kinds of all its layers. sliding: window of those that slide. window: trained; None: none is stated."""

    layers: tuple[str, ...]
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    sliding: int | None
    window: int | None

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "Measures":
        """What a config says."""
        text: Any = config.get_text_config()
        heads = text.num_attention_heads
        types = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        return cls(
            layers=tuple(types),
            heads=heads,
            kv_heads=getattr(text, "num_key_value_heads", None) or getattr(text, "num_kv_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
            hidden=text.hidden_size,
            sliding=getattr(text, "sliding_window", None),
            window=stated_window(config),
        )

    @property
    def group(self) -> int:
        """Query heads of a key-value head."""
        return self.heads // self.kv_heads


def chosen_layers(kinds: tuple[str, ...], leading: int) -> dict[int, int]:
    """The layers that a twin has, the `leading` first ones and one of each kind behind them -> how many layers each stands for."""
    behind = kinds[leading:]
    return {
        **dict.fromkeys(range(min(leading, len(kinds))), 1),
        **{kinds.index(kind, leading): behind.count(kind) for kind in dict.fromkeys(behind)},
    }


def twin(
    config: PreTrainedConfig,
    chosen: Sequence[int],
    *,
    group: int,
    kv_heads: int,
    head_dim: int,
    sliding: int | None,
    window: int | None,
    dtype: torch.dtype,
    stand_in: StandIn | None = None,
) -> PreTrainedModel:
    """A random model with these layers of the config, and so many key-value heads with `group` query heads each; windows in tokens.

    Args: stand_in: where methods are to think that its layers are; by default, where they are.
    """
    text: Any = copy.deepcopy(config.get_text_config())
    total = text.num_hidden_layers
    own = text.to_dict().get("head_dim") is not None
    for name, value in list(text.to_dict().items()):
        if isinstance(value, list) and len(value) == total:
            setattr(text, name, [value[index] for index in chosen])
        elif name in _SMALL and isinstance(value, int):
            setattr(text, name, min(value, _SMALL[name]))
    changes = {
        "num_hidden_layers": len(chosen), "num_attention_heads": group * kv_heads, "num_key_value_heads": kv_heads,
        "num_kv_heads": kv_heads, "head_dim": head_dim, "hidden_size": 2 * head_dim if own else group * kv_heads * head_dim,
        "sliding_window": sliding, "max_position_embeddings": window,
    }  # fmt: skip
    for name, value in changes.items():
        if getattr(text, name, None) is not None and value is not None:
            setattr(text, name, value)
    text.rope_parameters = _plain(getattr(text, "rope_parameters", None))
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(text, name, None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(text).to(dtype).eval()
    if stand_in is not None:
        vars(model)["longreach_stand_in"] = stand_in
    return model


def _plain(rope: Any) -> Any:
    """The same rotary embedding without a scaling, which has factors for each dimension and is nothing to bytes."""
    if not isinstance(rope, dict):
        return rope
    if any(isinstance(value, dict) for value in rope.values()):
        return {key: _plain(value) for key, value in rope.items()}
    kept = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if key in rope}
    return {"rope_type": "default", **kept}
