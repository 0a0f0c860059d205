"""What exporting a checkpoint writes down, and the proof that it means the same without longreach."""

import copy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel

from longreach.checkpoints import _plain_logits, _safety
from longreach.checkpoints._plain_logits import plain_logits
from longreach.checkpoints.record import Record, read_record
from longreach.checkpoints.spelling import check_spelling
from longreach.core.errors import CheckpointError, InputError
from longreach.core.method import Method
from longreach.core.spec import stack_of
from longreach.engine.apply import apply
from longreach.engine.rope_config import rope_of
from longreach.engine.window import position_limit
from longreach.positions.base import TableMethod, positions_of

REACH = 2048  # positions are spread over so many tokens at most: more turns show more of the rounding, and no more of the export
# A frequency that has gone through a config was rounded four times to 24 bits: where the factor was found by it, where the factor became
# float32, where that was multiplied by a power of the base, and where the product was inverted.
_FREQUENCIES = 4 * 2**-24
_STANDSTILL = 1e-18  # radians a token; an infinite factor is written as a large one, and what it leaves is no rotation
# With equal frequencies nothing else is left to differ. Where sums are added up in another order (other kernels), they lose some of their
# 24 bits, layer by layer: 9 of them, of the largest logit.
_LOGITS = 2**-15


def edited(config: PreTrainedConfig, changes: dict[str, Any]) -> PreTrainedConfig:
    """A copy of a config with values of its language model changed; None takes a value out."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    for name, value in changes.items():
        if value is None:
            vars(text).pop(name, None)
        else:
            setattr(text, name, copy.deepcopy(value))
    return config


def table_record(model: PreTrainedModel, method: TableMethod, target: int | None) -> Record:
    """The record of a checkpoint to be saved with a longer table among its weights. Args: target: tokens; None: all that the table holds.

    Raises: InputError for a target beyond the table or below the trained one; UnsupportedError for a model that the method does not fit.
    """
    config, name = model.config.get_text_config(), "max_position_embeddings"
    original, window = {name: getattr(config, name, None)}, position_limit(model) or 0
    with apply(model, method):
        longest = position_limit(model) or 0
    target = longest if target is None else target
    if not window <= target <= longest:
        raise InputError(f"target={target} is not between the {window} positions of the model and the {longest} under {method.spec}")
    return Record(method=method.spec, exported=True, trained_window=window, target=target, original=original)


def verify_export(folder: str | Path, model: PreTrainedModel | None = None) -> float:
    """Compare an exported checkpoint in plain transformers (another process, without longreach) with its method applied here.

    Both run in float32 on the CPU, one after the other, over 64 fixed tokens whose positions reach to the target (at most 2048); where the
    frequencies hang on the text's length, over such that stay inside the trained window, too. Rotary frequencies have to be equal but for
    the rounding of a config; the logits have to be equal with the same frequencies, for at far positions rounding alone moves them.
    Args: model: that it was saved from; needed after methods that change the weights (tables of learned positions), of which the folder
    holds only what became of them.
    Returns: the largest difference of the logits, each with its own frequencies.
    Raises: CheckpointError where frequencies or logits differ by more, where the spellings in the config differ, where plain transformers
    cannot load the folder, where the folder is not an export with a method, or where the model does not fit into memory.
    """
    folder = Path(folder)
    record = read_record(folder)
    if record is not None and not record.exported:
        raise CheckpointError(f"{folder} is no export: {record.method} stands in its longreach.json, and only longreach applies it")
    if record is None or record.original is None or record.target is None:
        raise CheckpointError(f"{folder} is not a checkpoint that longreach exported with a method")
    weights = _safety.find_weights(folder, str(folder), allow_pickle=False)
    _safety.check_memory(str(folder), weights, torch.float32, torch.device("cpu"))
    exported = AutoConfig.from_pretrained(folder)
    check_spelling(folder, exported)
    config = edited(exported, record.original)
    table = any(isinstance(method, TableMethod) for method in stack_of(record.method))
    if table and model is None:
        raise CheckpointError(f"{folder} can only be checked beside the model that it was saved from; give that, too")
    readings = [(min(record.target, REACH), stack_of(record.method))] if table else _readings(config, record)
    plain = _plain(folder, [reach for reach, _ in readings])
    ours = _in_float32(model) if table and model is not None else _plain_logits.load(folder, config=config)
    difference = 0.0
    for (reach, stack), theirs in zip(readings, plain, strict=True):
        with apply(ours, stack, warn=False):
            logits = theirs.pop("logits")
            difference = max(difference, _apart(plain_logits(ours, reach), logits))
            _check_frequencies(folder, _plain_logits.rotary(ours), theirs)
            _turn_by(ours, theirs)
            left, most = _apart(plain_logits(ours, reach), logits), _LOGITS * logits.abs().max().item()
        if not left <= most:  # `not <=` also refuses nan
            raise CheckpointError(f"{folder} differs in plain transformers: logits by {left:.2g}, more than {most:.2g}; do not use it")
    return difference


def _apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()


def _check_frequencies(folder: Path, ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Raise CheckpointError unless the rotary embeddings of both models turn alike, but for the rounding of a config."""
    shapes = [{name: value.shape for name, value in found.items()} for found in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise CheckpointError(f"{folder} differs in plain transformers: its rotary embeddings are of other shapes; do not use it")
    for name in ours:
        wanted, found = ours[name].double(), theirs[name].double()
        if not bool(((found - wanted).abs() <= _FREQUENCIES * wanted.abs() + _STANDSTILL).all()):
            apart = ((found - wanted).abs() / wanted.abs()).max().item()
            raise CheckpointError(f"{folder} differs in plain transformers: {name} by {apart:.2g} of its value; do not use it")


def _turn_by(model: PreTrainedModel, found: dict[str, Tensor]) -> None:
    """Let the rotary embeddings of a model turn as they do elsewhere."""
    for name, value in found.items():
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, value if attribute.endswith("inv_freq") else value.item())


def _in_float32(model: PreTrainedModel) -> PreTrainedModel:
    if model.dtype == torch.float32 and model.device.type == "cpu":
        return model
    twin: PreTrainedModel = copy.deepcopy(model).cpu().float()
    return twin


def _readings(config: PreTrainedConfig, record: Record) -> list[tuple[int, Sequence[Method]]]:
    """How far the positions reach that are compared, and what stands for the method there."""
    stack = stack_of(record.method)
    reach, positions = min(record.target or REACH, REACH), positions_of(stack)
    if positions is None:
        return [(reach, stack)]
    rope = rope_of(config)
    inside, beyond = positions.at_length(rope, rope.trained_window), positions.at_length(rope, rope.trained_window + 1)
    if inside == beyond:
        return [(reach, stack)]
    return [(min(reach, rope.trained_window), (inside,)), (max(reach, rope.trained_window + 1), (beyond,))]


def _plain(folder: Path, reaches: Sequence[int]) -> list[dict[str, Tensor]]:
    """For each reach, the logits [64, V] of the checkpoint in plain transformers, under the name `logits`, and what it rotates by."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.npz"
        # -P: the folder of that file must not become a place to import from.
        command = [sys.executable, "-P", _plain_logits.__file__, str(folder), str(out), *map(str, reaches)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own file, no shell
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise CheckpointError(f"plain transformers cannot load {folder}: {why}")
        found: list[dict[str, Tensor]] = [{} for _ in reaches]
        with np.load(out) as saved:
            for key in saved.files:
                index, _, name = key.partition("/")
                found[int(index)][name] = torch.from_numpy(saved[key])
        return found
