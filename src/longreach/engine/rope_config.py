"""Reads the rotary embedding out of a checkpoint's config, and writes a scaled one into it."""

from typing import Any

from transformers import PreTrainedConfig

from longreach.core.errors import UnsupportedError
from longreach.engine.window import trained_window
from longreach.positions.base import PositionsMethod, Rope

SCALED_BY = "longreach_method"  # in an exported config; some scalings only change the base, which nobody could tell from an original one
_WITHOUT = "choose a model that has one, or for learned positions a method that lengthens their table"
FULL = "full_attention"  # the layer type whose frequencies limit the length; sliding layers never look that far


def rope_of(config: PreTrainedConfig, layer_type: str | None = None, *, method: str = "position scaling") -> Rope:
    """The rotary embedding of a checkpoint (of its language model, where the checkpoint holds more).

    Args: layer_type: for configs with one embedding a layer type; None means the full-attention layers. method: named in errors.
    Raises: UnsupportedError where there is no rotary embedding, or one that is scaled already.
    """
    text = config.get_text_config()
    parameters = _parameters(text, layer_type, method)
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    scaled_by = getattr(text, SCALED_BY, None)
    if rope_type != "default" or scaled_by:
        factor = f", factor {parameters['factor']:g}" if parameters.get("factor") else ""
        raise UnsupportedError(
            method,
            text.model_type,
            f"its rotary embedding is already scaled ({scaled_by or f'{rope_type}{factor}'})",
            "start from the checkpoint that was scaled",
        )
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    dim = int(head_dim * (parameters.get("partial_rotary_factor") or 1.0))
    sections = tuple(parameters.get("mrope_section") or ()) or None
    return Rope(theta=float(parameters["rope_theta"]), dim=dim, trained_window=trained_window(config), sections=sections)


def with_rope(config: PreTrainedConfig, method: PositionsMethod) -> dict[str, Any]:
    """The `rope_parameters` of the config with `method` written in; the config itself is not touched.

    Where there is one embedding a layer type, only that of the full-attention layers changes. What belongs to the model rather than to
    the scaling (`partial_rotary_factor`, ...) is kept.
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
        return {**whole, FULL: {**whole[FULL], **written}}
    return {**whole, **written}


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
