"""Reads the rotary embedding out of a checkpoint's config, and writes a scaled one into it."""

import copy
from typing import Any

from transformers import PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.core.errors import UnsupportedError
from longreach.engine.window import trained_window
from longreach.positions.base import PositionsMethod, Rope, Scaling

SCALED_BY = "longreach_method"  # in an exported config; some scalings only change the base, which nobody could tell from an original one
_WITHOUT = "choose a model that has one, or for learned positions a method that lengthens their table"
FULL = "full_attention"  # the layer type whose frequencies limit the length; sliding layers never look that far
ORIGINAL = "original_max_position_embeddings"
# What belongs to a scaling and not to the model, beside the rope type.
_SCALING = (
    "type", "factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate",
    "low_freq_factor", "high_freq_factor", "short_factor", "long_factor", "short_mscale", "long_mscale",
)  # fmt: skip
_USUAL = {"beta_fast": 32.0, "beta_slow": 1.0}  # what transformers takes for a yarn that does not say
# Rope types that change nothing up to the trained window: a method stands in place of what they do beyond it.
_UNSCALED = ("default", "dynamic")
_SCALED = ("linear", "yarn", "llama3", "longrope")


def rope_of(config: PreTrainedConfig, layer_type: str | None = None, *, method: str = "position scaling") -> Rope:
    """The rotary embedding of a checkpoint (of its language model, where the checkpoint holds more), as it is scaled in there.

    Args: layer_type: for configs with one embedding a layer type; None means the full-attention layers. method: named in errors.
    Raises: UnsupportedError where there is no rotary embedding, or one of a rope type that methods cannot start from.
    """
    text = config.get_text_config()
    parameters = _parameters(text, layer_type, method)
    kind = rope_type_of(parameters)
    if kind not in (*_UNSCALED, *_SCALED):
        why = f"its rotary embedding is scaled by the rope type {kind}, on which no method can build"
        raise UnsupportedError(method, text.model_type, why, "choose an attention or cache method, or another checkpoint")
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    window = trained_window(config)
    scaling = _scaling(text, parameters, layer_type, window) if kind in _SCALED else None
    return Rope(
        theta=float(parameters["rope_theta"]),
        dim=2 * len(scaling.frequencies) if scaling else int(head_dim * (parameters.get("partial_rotary_factor") or 1.0)),
        trained_window=window,
        sections=tuple(parameters.get("mrope_section") or ()) or None,
        scaling=scaling,
    )


def with_rope(config: PreTrainedConfig, method: PositionsMethod) -> dict[str, Any]:
    """The `rope_parameters` of the config with `method` written in; the config itself is not touched.

    Where there is one embedding a layer type, only that of the full-attention layers changes. What belongs to the model rather than to
    the scaling (`partial_rotary_factor`, ...) is kept; a scaling that was there before is in what the method writes.
    Raises: UnsupportedError as `rope_of`, and for methods that transformers' own `rope_parameters` cannot express.
    """
    text = config.get_text_config()
    written = method.rope_parameters(rope_of(config, method=method.spec))
    if written is None:
        raise UnsupportedError(
            method.spec,
            "a plain config",
            "transformers has no rope type for it",
            "save it with a longreach.json instead, or choose a method listed as exportable",
        )
    whole = dict(text.rope_parameters)
    if _nested(whole):
        return {**whole, FULL: {**_without_scaling(whole[FULL]), **written}}
    return {**_without_scaling(whole), **written}


def rope_type_of(parameters: dict[str, Any]) -> str:
    """As transformers calls it."""
    return str(parameters.get("rope_type", parameters.get("type", "default")))


def scaled_before(config: PreTrainedConfig) -> str | None:
    """What scales the rotary embedding of a checkpoint, in words (`yarn, factor 4`); None where nothing does, or there is none."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    parameters = parameters.get(FULL) or parameters
    kind = rope_type_of(parameters)
    if kind in _UNSCALED:
        return None
    return f"{kind}, factor {parameters['factor']:g}" if parameters.get("factor") else kind


def _scaling(text: PreTrainedConfig, parameters: dict[str, Any], layer_type: str | None, window: int) -> Scaling:
    """What transformers makes of the parameters of a scaled rotary embedding."""
    kind, original = rope_type_of(parameters), parameters.get(ORIGINAL)
    twin = copy.copy(text)  # reading writes into the config
    twin.rope_parameters = copy.deepcopy(text.rope_parameters)
    key = (layer_type or FULL) if _nested(twin.rope_parameters) else None

    def at(seq_len: int | None) -> tuple[tuple[float, ...], float]:
        inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](twin, None, seq_len=seq_len, layer_type=key)
        return tuple(inv_freq.tolist()), float(factor)

    frequencies, attention_factor = at(window)
    short = at(None)[0] if kind == "longrope" else frequencies
    stated = {name: value for name, value in parameters.items() if name in _SCALING and not isinstance(value, list)}
    if kind == "yarn":
        # From where transformers reads it, also for embeddings that differ by layer type.
        stated |= {name: stated.get(name) or value for name, value in _USUAL.items()} | {"truncate": text.rope_parameters.get("truncate")}
        stated["factor"] = stated.get("factor") or text.max_position_embeddings / original
    return Scaling(
        kind=kind,
        frequencies=frequencies,
        attention_factor=attention_factor,
        original_window=None if original is None else int(original),
        short=None if short == frequencies else short,
        stated=tuple(sorted(stated.items())),
    )


def _without_scaling(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in _SCALING}


def _parameters(text: PreTrainedConfig, layer_type: str | None, method: str) -> dict[str, Any]:
    whole = getattr(text, "rope_parameters", None)
    parameters = whole.get(layer_type or FULL) if whole and _nested(whole) else whole
    # Falcon's config and model have a rotary embedding also where linear biases are used in its place.
    if not parameters or parameters.get("rope_theta") is None or getattr(text, "alibi", False):
        which = f" in its {layer_type or FULL} layers" if whole else ""
        raise UnsupportedError(method, text.model_type, f"it has no rotary position embedding{which}", _WITHOUT)
    return dict(parameters)


def _nested(parameters: dict[str, Any]) -> bool:
    return any(isinstance(value, dict) for value in parameters.values())
