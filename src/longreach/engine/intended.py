"""How far a checkpoint says that it reads."""

from typing import Any

from transformers import PreTrainedModel

from longreach.engine.rope_config import FULL


def intended_window(model: PreTrainedModel) -> int | None:
    """Tokens that the checkpoint says it can read: its target where longreach saved it, else its (scaled) maximum; None if it says none."""
    record: Any = vars(model).get("longreach_record")  # `longreach.load` leaves it there
    if record is not None and record.target is not None:
        return int(record.target)
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get(FULL) or rope
    scaled = int((rope.get("factor") or 1) * (rope.get("original_max_position_embeddings") or 0))
    return max(getattr(config, "max_position_embeddings", None) or 0, scaled) or None
