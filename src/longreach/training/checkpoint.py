"""One-file training checkpoints, replaced atomically: a kill while saving leaves the previous one whole."""

from pathlib import Path
from typing import Any

import torch

from longreach.core.files import replacing_file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` beside `path`, flush it to disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing_file(path) as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The saved state (tensors and plain values only, on the CPU), or None where there is no checkpoint."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
