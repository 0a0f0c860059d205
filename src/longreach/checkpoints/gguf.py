"""Loads GGUF files: as what transformers makes of their metadata, and plain weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoTokenizer, GgufConfig, PreTrainedConfig

from longreach.checkpoints import _safety
from longreach.checkpoints._errors import first_line, one_line
from longreach.checkpoints._safety import Weights
from longreach.checkpoints.gguf_header import GGUFHeader, check_gguf, read_header
from longreach.checkpoints.gguf_positions import state_positions
from longreach.checkpoints.spelling import spell_out
from longreach.core.errors import CheckpointError

_FLOATS = {0: torch.float32, 1: torch.float16, 30: torch.bfloat16}  # numbers of ggml types
_UNPACKED = torch.bfloat16  # what blocks of quantized weights become where no dtype is asked for


@contextmanager
def spread(checkpoint: Path, label: str, *, tokenizer: bool = True) -> Iterator[Path]:
    """A folder with the config of a checkpoint and its tokenizer: the checkpoint itself, or for a GGUF file one that is there inside only.

    Raises: CheckpointError for a GGUF file that transformers cannot read.
    """
    if checkpoint.is_dir():
        yield checkpoint
        return
    header = check_gguf(checkpoint, label)
    # transformers would mix in what lies beside the file, so it is sent to look in folders of their own.
    with TemporaryDirectory() as empty, TemporaryDirectory() as folder:
        config = _config(header, empty, label)
        config.save_pretrained(folder)
        spell_out(Path(folder), config, always=True)
        if tokenizer:
            with one_line(f"the tokenizer of {label}"):
                AutoTokenizer.from_pretrained(empty, gguf_file=str(checkpoint.resolve())).save_pretrained(folder)
        yield Path(folder)


def _config(header: GGUFHeader, empty: str, label: str) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(empty, gguf_file=str(header.path.resolve()))
    except Exception as error:  # each architecture is read in a way of its own, which fails in a way of its own
        version = transformers.__version__
        why = f"transformers {version} cannot read GGUF files of the architecture {header.architecture} ({first_line(error)})"
        raise CheckpointError(f"{label} cannot be loaded: {why}; give the folder of the original checkpoint") from error
    with one_line(label):
        state_positions(config, header, label)
    return config


def find_weights(checkpoint: Path, label: str, *, allow_pickle: bool) -> Weights:
    """The weights of a checkpoint; those of a GGUF file as they are once loaded, in one dtype and with quantized blocks unpacked.

    Raises: CheckpointError where there are none, or not all of them.
    """
    if checkpoint.is_dir():
        return _safety.find_weights(checkpoint, label, allow_pickle=allow_pickle)
    header = read_header(checkpoint, label)
    kinds = {tensor.kind for tensor in header.tensors.values()}
    halves = kinds - {0}  # a file in half precision has its norms in float32
    dtype = _FLOATS.get(next(iter(halves or {0})), _UNPACKED) if len(halves) < 2 else _UNPACKED
    sizes = ((dtype, tensor.elements, tensor.elements * dtype.itemsize) for tensor in header.tensors.values())
    return Weights(pickled=False, sizes=tuple(sizes))


def unpacking(file: Path) -> dict[str, Any]:
    """What `from_pretrained` has to be told to unpack the weights of a GGUF file into a plain model."""
    return {"gguf_file": str(file.resolve()), "quantization_config": GgufConfig(dequantize=True)}


@contextmanager
def bars_as_chosen() -> Iterator[None]:
    """Inside, the bar that transformers draws for GGUF files is shown where its other bars are; left alone it is always shown."""
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils import logging

    always = vars(reader)["tqdm"]
    vars(reader)["tqdm"] = logging.tqdm
    try:
        yield
    finally:
        vars(reader)["tqdm"] = always
