"""How many tokens a checkpoint was trained on, and how many its tables of positions allow."""

from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from longreach.core.errors import InputError
from longreach.engine.tables import position_tables

_NAMES = ("max_position_embeddings", "max_seq_len", "n_positions")  # the last one: T5, whose positions go on beyond it
_TABLES = ("wpe", "embed_positions", "position_embeddings")  # precomputed for a fixed number of positions


def trained_window(config: PretrainedConfig) -> int:
    """The trained window in tokens: of a scaled rotary embedding, the one that it is scaled to.

    That is `factor * original_max_position_embeddings` for YaRN, whose checkpoints do not agree on what the maximum in their config means,
    and the config's maximum for all others. Whether a checkpoint was also tuned at that length, its config cannot tell.

    Raises: InputError where the config states none (linear biases, recurrent models).
    """
    text = config.get_text_config()
    if scaled := [reach for parameters in _rope_parameters(text) if (reach := _yarn_reach(parameters))]:
        return min(scaled)
    for name in _NAMES:
        if window := getattr(text, name, None):
            return int(window)
    raise InputError(f"the config ({text.model_type}) states no window (max_position_embeddings); give the trained window yourself")


def stated_window(config: PretrainedConfig) -> int | None:
    """The trained window, or None where the config states none."""
    try:
        return trained_window(config)
    except InputError:
        return None


def window_of(model: PreTrainedModel) -> int:
    """The trained window of a loaded model: what its config says, or its table of positions where that ends before."""
    window, limit = trained_window(model.config), position_limit(model)
    return window if limit is None else min(window, limit)


def window_before_export(model: PreTrainedModel) -> int:
    """The same, but of a checkpoint that longreach exported under a method, the window that it had before: what its weights may know."""
    record: Any = vars(model).get("longreach_record")  # `longreach.load` leaves it there
    before: int | None = record.trained_window if record is not None and record.exported and record.method else None
    return before or window_of(model)


def position_limit(model: PreTrainedModel) -> int | None:
    """The most tokens that the model's table of absolute positions holds; None for models without one (rotary, linear biases)."""
    if tables := position_tables(model):
        return min(table.positions for table in tables)
    named = [*model.named_modules(), *model.named_buffers()]
    if not any(name.rpartition(".")[2] in _TABLES and _is_table(value) for name, value in named):
        return None
    return trained_window(model.config)


def cannot_read(limit: int) -> str:
    """What is said of a model with a table of `limit` positions."""
    return f"cannot read beyond {limit} tokens: its table of positions ends there"


def _is_table(value: Any) -> bool:
    return isinstance(value, nn.Embedding) or not isinstance(value, nn.Module)


def _yarn_reach(parameters: dict[str, Any]) -> int | None:
    original, factor = parameters.get("original_max_position_embeddings"), parameters.get("factor")
    return round(factor * original) if parameters.get("rope_type") == "yarn" and original and factor else None


def _rope_parameters(config: PretrainedConfig) -> list[dict[str, Any]]:
    """One dict, or one for each layer type."""
    parameters: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    return [value for value in parameters.values() if isinstance(value, dict)] or [parameters]
