"""What can be chosen when a checkpoint is loaded, checked before any library is."""

from importlib.util import find_spec
from pathlib import Path

from longreach.core.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")


def check_dtype(dtype: object) -> None:
    """Raises: InputError for an unknown name."""
    if isinstance(dtype, str) and dtype not in ("auto", *DTYPES):
        raise InputError(f"unknown dtype {dtype!r}; choose auto, {', '.join(DTYPES)}")


def check_bits(checkpoint: Path | None, load_in_4bit: bool) -> None:
    """Raises: InputError where a GGUF file is to be loaded in 4 bits."""
    if load_in_4bit and checkpoint is not None and checkpoint.is_file():
        raise InputError(f"{checkpoint} is a GGUF file, and those are not loaded in 4 bits; save it as a folder first, then load that so")


def check_choices(dtype: object, device: object, device_map: str | None, load_in_4bit: bool, adapter: str | Path | None) -> None:
    """Raises: InputError for arguments of `load` that are unknown, exclude each other, or need what is not installed."""
    check_dtype(dtype)
    if device_map is not None and device_map not in DEVICE_MAPS:
        raise InputError(f"unknown device map {device_map!r}; choose {', '.join(DEVICE_MAPS)}")
    if device_map is not None and device is not None:
        raise InputError("a device and a device map exclude each other; give one of them")
    if load_in_4bit and find_spec("bitsandbytes") is None:
        raise InputError("loading in 4 bits needs bitsandbytes; pip install 'longreach[4bit]'")
    if load_in_4bit and adapter is not None:
        raise InputError("an adapter cannot be merged into 4-bit weights without loss; merge and save it first, then load that in 4 bits")
