"""Where and how the weights of a checkpoint are held: device, dtype, several devices, 4 bits."""

import torch
from transformers import BitsAndBytesConfig

from longreach.checkpoints import _safety
from longreach.checkpoints.choices import check_dtype
from longreach.core.errors import InputError

FLOAT32_LIMIT = 1_000_000_000  # parameters; below it a model runs in float32 on a CPU, where bfloat16 is slow and less exact
FAST_BFLOAT16_LIMIT = 50_000_000  # the same for a CPU that computes in bfloat16: smaller models gain nothing by it


def computes_in_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 (AVX512_BF16 or AMX), with which models run about twice as fast as in float32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def four_bits() -> BitsAndBytesConfig:
    """NF4 with double quantization (QLoRA, arXiv:2305.14314), computed in bfloat16."""
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )


def find_device(device: str | torch.device | None) -> torch.device:
    """The device that is meant; None: cuda where there is one. Raises: InputError for one that is not there."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise InputError(f"unknown device {device!r}; write cpu, cuda, cuda:1 or mps") from None
    missing = place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count()
    if missing or (place.type == "mps" and not torch.backends.mps.is_available()):
        raise InputError(f"device {device} is not there; torch sees {torch.cuda.device_count()} CUDA devices")
    return place


def find_dtype(dtype: str | torch.dtype | None, weights: _safety.Weights, place: torch.device, *, quantized: bool) -> torch.dtype | None:
    """The dtype to load in; None means as stored. Raises: InputError for an unknown one."""
    check_dtype(dtype)
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None:
        limit = FAST_BFLOAT16_LIMIT if computes_in_bfloat16() else FLOAT32_LIMIT
        return torch.float32 if place.type == "cpu" and not quantized and weights.parameters < limit else None
    if dtype == "auto":
        return None
    chosen: torch.dtype = getattr(torch, dtype)
    return chosen
