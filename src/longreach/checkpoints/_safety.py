"""What is checked of a checkpoint folder before anything in it is loaded: that it is whole, runs no code, and fits into memory."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING

from longreach.core.errors import CheckpointError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLED_INDEX, PICKLED = "pytorch_model.bin.index.json", "pytorch_model.bin"
# What a target dtype converts; integers and 8-bit floats stay as they are.
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weight files of a checkpoint. Args: sizes: (dtype that a target dtype replaces, elements, stored bytes) of every tensor."""

    pickled: bool
    sizes: tuple[tuple[torch.dtype | None, int, int], ...]

    @property
    def stored(self) -> torch.dtype | None:
        """The dtype of all tensors, or None where they differ."""
        found = {dtype for dtype, _, _ in self.sizes}
        return found.pop() if len(found) == 1 else None

    @property
    def parameters(self) -> int:
        """Elements of all tensors (of pickled ones, about)."""
        return sum(elements for _, elements, _ in self.sizes)

    def bytes_in(self, dtype: torch.dtype | None) -> int:
        """Memory that the weights take in `dtype` (None: as they are stored)."""
        return sum(elements * dtype.itemsize if dtype is not None and replaced else stored for replaced, elements, stored in self.sizes)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises: CheckpointError where the file is not JSON, or not an object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # also text that is not UTF-8
        raise CheckpointError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return data


def check_no_code(folder: Path, name: str) -> None:
    """Raise CheckpointError where the checkpoint can only be loaded by running code of its own (`auto_map`).

    Checkpoints that are older than their family in transformers bring code, too; transformers' own classes then load them.
    """
    for file, native in (("config.json", _native_config), ("tokenizer_config.json", _native_tokenizer)):
        settings = read_json(folder / file) if (folder / file).is_file() else {}
        if settings.get("auto_map") and not native(settings):
            raise CheckpointError(
                f"{name} brings its own code (auto_map in {file}), which is not run unless --trust-remote-code; read that code first"
            )


def _native_config(settings: dict[str, Any]) -> bool:
    return settings.get("model_type") in CONFIG_MAPPING


def _native_tokenizer(settings: dict[str, Any]) -> bool:
    return hasattr(transformers, str(settings.get("tokenizer_class")))


def find_weights(folder: Path, name: str, *, allow_pickle: bool) -> Weights:
    """The weights of a checkpoint, every file whole.

    Raises: CheckpointError where there are none, a file is missing, truncated or corrupt, or they are pickled and that is not allowed.
    """
    if (folder / INDEX).is_file() or (folder / SINGLE).is_file():
        files = _shards(folder, INDEX, SINGLE)
        return Weights(pickled=False, sizes=tuple(size for file in files for size in _sizes(file)))
    pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in sorted(folder.glob(pattern))]
    if not pickled:
        other = [file.name for pattern in ("*.gguf", "*.h5", "*.msgpack", "*.safetensors") for file in sorted(folder.glob(pattern))]
        itself = other and other[0].endswith(".gguf")
        found = f" ({other[0]} is not read{'; give the file itself' if itself else ''})" if other else ""
        raise CheckpointError(f"{name} has no weights: neither {SINGLE} nor {INDEX}{found}")
    if not allow_pickle:
        raise CheckpointError(
            f"{name} has its weights only as pickle ({pickled[0]}), which can run code when it is loaded. "
            "Only safetensors are loaded unless --allow-pickle"
        )
    if PICKLED not in pickled and not (folder / PICKLED_INDEX).is_file():
        raise CheckpointError(f"{name} has no weights: neither {SINGLE} nor {PICKLED} ({pickled[0]} is not read)")
    files = _shards(folder, PICKLED_INDEX, PICKLED)
    # Their headers cannot be read without unpickling: the config says how large an element is.
    config = read_json(folder / "config.json")
    dtype = torch.float32 if config.get("dtype", config.get("torch_dtype")) in (None, "float32") else torch.bfloat16
    bytes_each = [file.stat().st_size for file in files]
    return Weights(pickled=True, sizes=tuple((dtype, size // dtype.itemsize, size) for size in bytes_each))


def check_memory(name: str, weights: Weights, dtype: torch.dtype | None, device: torch.device) -> None:
    """Raise CheckpointError where the weights do not fit into the free memory of `device`; unknown memory passes."""
    needed, free = weights.bytes_in(dtype), available_bytes(device)
    if free is None or needed <= free:
        return
    half = weights.bytes_in(torch.bfloat16)
    if dtype is not None and half < needed and half <= free:
        remedy = f"--dtype bfloat16 takes {amount(half)}"
    else:
        remedy = "choose a smaller checkpoint or a machine with more memory"
    kind = f" in {str(dtype).removeprefix('torch.')}" if dtype is not None else ""
    raise CheckpointError(f"{name} needs {amount(needed)} of memory{kind} and {amount(free)} are free on {device}; {remedy}")


def available_bytes(device: torch.device) -> int | None:
    """Free memory of a device in bytes, or None where it cannot be known.

    On a CPU: what Linux counts as available, or what the control group still allows where that is less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    known = [size for size in (_meminfo(), _control_group()) if size is not None]
    return min(known, default=None)


def weight_files(folder: Path, index: str, single: str) -> list[str]:
    """The names of all weight files: those that the index lists, or the only one.

    Raises: CheckpointError for an index that lists none, or files outside the folder.
    """
    if not (folder / index).is_file():
        return [single]
    listed = read_json(folder / index).get("weight_map")
    names = sorted({str(file) for file in listed.values()}) if isinstance(listed, dict) else []
    if not names or any(Path(file).name != file for file in names):
        raise CheckpointError(f"{folder / index} lists no weights, or weights outside the checkpoint")
    return names


def _shards(folder: Path, index: str, single: str) -> list[Path]:
    files = [folder / file for file in weight_files(folder, index, single)]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise CheckpointError(f"{missing[0]} is missing ({len(missing)} of {len(files)} weight files); fetch the checkpoint again")
    return files


def _sizes(file: Path) -> list[tuple[torch.dtype | None, int, int]]:
    """Every tensor of a safetensors file, from its header; the tensors themselves are not read."""
    length = file.stat().st_size
    with file.open("rb") as stream:
        header_length = int.from_bytes(stream.read(8), "little")
        if length < 8 or header_length > 100_000_000:  # the format's own limit
            raise CheckpointError(f"{file} is corrupt: it does not begin with a safetensors header")
        text = stream.read(header_length)
    if len(text) < header_length:
        raise CheckpointError(f"{file} is truncated: it ends inside its header; fetch it again")
    try:
        tensors = {key: value for key, value in json.loads(text).items() if key != "__metadata__"}
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors.values()]
        sizes = [_size(tensor) for tensor in tensors.values()]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise CheckpointError(f"{file} is corrupt: its safetensors header cannot be read") from None
    whole = 8 + header_length + max(ends, default=0)
    if length != whole:
        state = "truncated" if length < whole else "corrupt"
        raise CheckpointError(f"{file} is {state}: it has {length} bytes and its header says {whole}; fetch it again")
    return sizes


def _size(tensor: dict[str, Any]) -> tuple[torch.dtype | None, int, int]:
    start, end = tensor["data_offsets"]
    elements = 1
    for extent in tensor["shape"]:
        elements *= int(extent)
    return _FLOATS.get(tensor["dtype"]), elements, int(end) - int(start)


def _meminfo(file: Path = Path("/proc/meminfo")) -> int | None:
    if not file.is_file():
        return None
    amounts = dict(line.split(":", 1) for line in file.read_text(encoding="ascii").splitlines() if ":" in line)
    return int(amounts["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in amounts else None


def _control_group(root: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes that the tightest control group around this process still allows (version 2, then version 1), or None without a limit."""
    left = []
    for line in mine.read_text(encoding="utf-8").splitlines() if mine.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        base = root / controllers
        limit, used = ("memory.max", "memory.current") if not controllers else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = base / path.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(base))):
            allowed = _number(folder / limit)
            if allowed is not None:
                # File pages count as used but are given back on demand.
                left.append(allowed - (_number(folder / used) or 0) + _file_pages(folder / "memory.stat"))
    return max(min(left), 0) if left else None


def _number(file: Path) -> int | None:
    text = file.read_text(encoding="ascii").strip() if file.is_file() else "max"
    return int(text) if text.isdigit() else None


def _file_pages(file: Path) -> int:
    lines = file.read_text(encoding="ascii").splitlines() if file.is_file() else []
    return next((int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "total_inactive_file "))), 0)


def amount(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
