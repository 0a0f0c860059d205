"""How far a checkpoint says that it reads."""

from typing import Any

from transformers import PreTrainedModel

from longreach.engine.window import stated_window


def intended_window(model: PreTrainedModel) -> int | None:
    """Tokens that the checkpoint says it can read: its target where longreach saved it, else its (scaled) maximum; None if it says none."""
    record: Any = vars(model).get("longreach_record")  # `longreach.load` leaves it there, and `longreach_undo` where it applied the method
    whole = record is not None and (record.exported or not record.method or "longreach_undo" in vars(model))
    if whole and record.target is not None:
        return int(record.target)
    config = model.config.get_text_config()
    return max(getattr(config, "max_position_embeddings", None) or 0, stated_window(config) or 0) or None
