"""PEFT adapters beside a checkpoint: found, checked, and merged into the weights of their model."""

import warnings
from pathlib import Path

from transformers import PreTrainedModel

from longreach.checkpoints._safety import read_json
from longreach.checkpoints.hub import download, name_and_revision
from longreach.core.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def check_is_model(folder: Path, label: str) -> None:
    """Raises: CheckpointError where a folder holds no model, and what to do where it holds an adapter."""
    if (folder / "config.json").is_file():
        return
    if not (folder / CONFIG).is_file():
        inside = min(folder.glob("*.gguf"), default=None)
        hint = "" if inside is None else f"; it holds the GGUF file {inside.name}; give the file itself: {inside}"
        raise CheckpointError(f"{label} has no config.json: it is not a checkpoint{hint}")
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    which = f"its model is {base}" if base else "name its model"
    raise CheckpointError(f"{label} is an adapter, not a model; {which}, and --adapter {label} merges the adapter into it")


def find_adapter(name: str) -> Path:
    """The folder of an adapter, fetched from the hub where `name` is no folder.

    Raises: CheckpointError where there is none, or its weights exist only as pickle.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = download(*name_and_revision(name), [CONFIG, WEIGHTS])
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{name} has no {CONFIG}: it is not an adapter")
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{name} has no {WEIGHTS}; adapters in other formats are not loaded")
    return folder


def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The model with the adapter in its weights. Raises: what peft raises where the adapter does not belong to the model."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that transformers has renamed
        warnings.filterwarnings("error", message="Found missing adapter keys")  # layers that the adapter has no weights for
        merged: PreTrainedModel = PeftModel.from_pretrained(model, str(folder)).merge_and_unload(safe_merge=True)
    return merged
