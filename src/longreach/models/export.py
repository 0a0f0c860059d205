"""Proves that an exported checkpoint means the same without longreach."""

import copy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from longreach.core.errors import CheckpointError
from longreach.models import _plain_logits, _safety
from longreach.models._plain_logits import plain_logits
from longreach.models.apply import apply
from longreach.models.record import read_record

TOLERANCE = 1e-4


def edited(config: PreTrainedConfig, changes: dict[str, Any]) -> PreTrainedConfig:
    """A copy of a config with values of its language model changed."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    for name, value in changes.items():
        setattr(text, name, copy.deepcopy(value))
    return config


def verify_export(folder: str | Path) -> float:
    """Compare an exported checkpoint in plain transformers (another process, without longreach) with its method applied here.

    Both run in float32 on the CPU, one after the other, over 64 fixed tokens whose positions reach to the target (at most 2048).
    Returns: the largest difference of the logits.
    Raises: CheckpointError where it is above 1e-4, where plain transformers cannot load the folder, where the folder is not an export with
    a method, or where the model does not fit into memory.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is not None and not record.exported:
        raise CheckpointError(f"{folder} is no export: {record.method} stands in its longreach.json, and only longreach applies it")
    if record is None or record.original is None or record.target is None:
        raise CheckpointError(f"{folder} is not a checkpoint that longreach exported with a method")
    weights = _safety.find_weights(folder, str(folder), allow_pickle=False)
    _safety.check_memory(str(folder), weights, torch.float32, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "logits.npy"
        # -P: the folder of that file must not become a place to import from.
        command = [sys.executable, "-P", _plain_logits.__file__, str(folder), str(record.target), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own file, no shell
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckpointError(f"plain transformers cannot load {folder}: {why}")
        plain = torch.from_numpy(np.load(out))
    config = edited(AutoConfig.from_pretrained(folder), record.original)
    model = AutoModelForCausalLM.from_pretrained(folder, config=config, dtype=torch.float32).eval()
    with apply(model, record.method):
        ours = plain_logits(model, record.target)
    difference = (ours - plain).abs().max().item()
    if not difference <= TOLERANCE:  # `not <=` also refuses nan
        raise CheckpointError(f"{folder} differs in plain transformers: logits by {difference:.2g}, more than {TOLERANCE:g}; do not use it")
    return difference
