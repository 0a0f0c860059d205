"""Files of snapshots: what a model has read, kept for another process.

A file is a safetensors file. Its header says what it was taken under; `state` is what is no tensors, as JSON; all else is tensors.
"""

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

import longreach
from longreach.core.errors import InputError, LongreachError
from longreach.core.files import replacing_file
from longreach.engine.apply import applied, unwrapped
from longreach.engine.fingerprint import fingerprint
from longreach.engine.snapshots import Part, Snapshot, check_snapshot, plain
from longreach.engine.watch import watch_on

FORMAT = 1
_HEADER, _STATE = "longreach_cache", "state"
_LARGE = 1 << 20  # bytes from which on a tensor is an entry of its own


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself.

    Args: longreach: the release that wrote it. method: spec of what was applied; "" for nothing. model: its fingerprint. tokens: that had
    been read. checksum: of all this and what the file holds.
    """

    longreach: str
    method: str
    model: str
    tokens: int
    checksum: str = ""


def save(taken: Snapshot, path: str | Path, model: Any) -> None:
    """Write a snapshot into a file, a safetensors file: whole, or not at all.

    Its header (see `read_header`) says what it was taken under: the format, the release of longreach, the methods applied to `model`,
    and which model that is, by a fingerprint (see engine/fingerprint.py).

    Args: model: that the cache was filled by, under the same methods. Where the snapshot was taken without a method, or is of an
    encoder-decoder, the caller answers for that: the file will name the model that is given here. Only one with another number of layers,
    another dtype, or keys and values of other sizes is refused.
    Raises: InputError where the file cannot be written; LongreachError for a snapshot that was not taken under what is applied to `model`,
    or by a model of another shape.
    """
    check_snapshot(taken)
    path, model = Path(path), unwrapped(model)
    if taken.watch is not watch_on(model):
        now = f"{spec} is applied to the model anew" if (spec := applied(model)) else "no method is applied to the model"
        raise LongreachError(f"the snapshot was taken under something else ({now}); save it where it was taken")
    if why := _unlike(taken.caches, model):
        name, remedy = type(model).__name__, "save it with the model that read it, inside autocast where that was on"
        raise LongreachError(f"the snapshot was not read by this {name}: it has {why}; {remedy}")
    tensors: dict[str, Tensor] = {}
    state = [[_packed(part, f"{c}.{number}", tensors) for number, part in enumerate(parts)] for c, parts in enumerate(taken.caches)]
    tensors[_STATE] = torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)
    header = Header(longreach=longreach.__version__, method=applied(model), model=fingerprint(model), tokens=taken.tokens)
    header = replace(header, checksum=_checksum(header, tensors))
    try:
        with replacing_file(path) as partial:
            save_file(tensors, partial, metadata={_HEADER: json.dumps({"format": FORMAT, **asdict(header)})})
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {_reason(error)}") from None


def load(path: str | Path, model: Any) -> Snapshot:
    """The snapshot in a file, to be restored into empty caches of `model`, which then goes on as it would have where it was saved.

    The file is mapped into memory, and checked as a whole; caches get copies of what it holds.

    Args: model: of the same weights, under the same methods; which the file was read by, whoever saved it has said (see `save`).
    Raises: InputError for a file that is missing, damaged, of another model, of other methods, or of another release of longreach.
    """
    path, model = Path(path), unwrapped(model)
    with _opened(path) as file:
        header = _header(path, file)
        _check_header(path, header, model)
        tensors = _contents(path, file, header)
    devices = _devices(model)
    try:
        state = json.loads(tensors[_STATE].numpy().tobytes())
        caches = tuple(
            tuple(_unpacked(part, tensors, devices.get(index, model.device)) for index, part in enumerate(parts)) for parts in state
        )
        if why := _unlike(caches, model):
            raise ValueError(f"it has {why}")
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError) as error:
        raise InputError(f"{path} holds something else than a cache of this model ({error}); read the text again") from None
    return Snapshot(caches=caches, watch=watch_on(model), tokens=header.tokens)


def read_header(path: str | Path) -> Header:
    """What a file that `save` wrote says of itself; its contents are not read.

    Raises: InputError for a file that is missing, was not written by `save`, or in a format that this longreach does not read.
    """
    path = Path(path)
    with _opened(path) as file:
        return _header(path, file)


def check_whole(path: str | Path) -> Header:
    """What a file says of itself, once all of it was read and found to be what was saved; which model it is of does not matter.

    Raises: InputError as `read_header`, and for contents that are damaged.
    """
    path = Path(path)
    with _opened(path) as file:
        header = _header(path, file)
        _contents(path, file, header)
    return header


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise InputError(f"{path} is no file; longreach.engine.snapshot_files.save writes one")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} is damaged, or no snapshot of a cache ({error}); read the text again") from None


def _header(path: Path, file: Any) -> Header:
    found: Any = None
    with suppress(ValueError):
        found = json.loads((file.metadata() or {}).get(_HEADER, "null"))
    if not isinstance(found, dict):
        raise InputError(f"{path} is no snapshot of a cache, but another safetensors file")
    if (given := found.pop("format", None)) != FORMAT:
        release = found.get("longreach")
        raise InputError(f"{path} has format {given!r} (longreach {release}) and this longreach reads {FORMAT}; read the text again")
    wanted = {field.name: field.type for field in fields(Header)}
    if {name: type(value) for name, value in found.items()} != wanted:
        raise InputError(f"{path} is damaged: its header says {', '.join(found)}; read the text again")
    return Header(**found)


def _contents(path: Path, file: Any, header: Header) -> dict[str, Tensor]:
    """The tensors by name, mapped into memory. Raises: InputError where they are not those that were saved."""
    tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    if _checksum(header, tensors) != header.checksum:
        raise InputError(f"{path} is damaged: its contents are not those that were saved; read the text again")
    return tensors


def _check_header(path: Path, header: Header, model: PreTrainedModel) -> None:
    if header.longreach != longreach.__version__:
        why = f"by longreach {header.longreach}, and this is {longreach.__version__}"
        raise InputError(f"{path} was written {why}; read the text again")
    if header.method != applied(model):
        now, then = applied(model) or "no method", header.method or "no method"
        remedy = f"apply {then}" if header.method else f"leave {now}"
        raise InputError(f"{path} was read under {then}, and {now} is applied to the model; {remedy}, or read the text again")
    if header.model != fingerprint(model):
        raise InputError(f"{path} was read by another model, by its config or its weights; load that, or read the text again")


def _packed(part: Part, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The part as JSON, its tensors under names in `tensors`: large ones each by itself, small ones together, for there can be many."""
    places: list[tuple[str, int, list[int]]] = []
    small: dict[str, list[Tensor]] = {}
    filled: Counter[str] = Counter()
    for number, tensor in enumerate(part.tensors):
        kind = str(tensor.dtype).removeprefix("torch.")
        if tensor.nbytes >= _LARGE:
            places.append((f"{name}.{number}", 0, list(tensor.shape)))
            tensors[f"{name}.{number}"] = tensor.flatten().cpu()
            continue
        places.append((f"{name}.{kind}", filled[kind], list(tensor.shape)))
        small.setdefault(kind, []).append(tensor.flatten().cpu())
        filled[kind] += tensor.numel()
    tensors.update({f"{name}.{kind}": torch.cat(several) for kind, several in small.items()})
    return {"kind": part.kind, "node": part.node, "frozen": list(part.frozen), "tensors": places}


def _unpacked(part: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> Part:
    found = [tensors[name][first : first + math.prod(shape)].view(shape) for name, first, shape in part["tensors"]]
    return Part(kind=part["kind"], node=part["node"], frozen=part["frozen"], tensors=found, device=device)


def _devices(model: PreTrainedModel) -> dict[int, torch.device]:
    """Where the layers of a model's cache lie, by their number; of offloaded ones, where accelerate runs them."""
    found: dict[int, torch.device] = {}
    for module in model.modules():
        if not isinstance(index := getattr(module, "layer_idx", None), int):
            continue
        hooks = [getattr(each, "_hf_hook", None) for each in module.modules()]
        places = [weight.device for weight in module.parameters() if weight.device.type != "meta"]
        places += [torch.device(place) for hook in hooks if (place := getattr(hook, "execution_device", None)) is not None]
        if places:
            found.setdefault(index, places[0])
    return found


def _unlike(caches: Sequence[Sequence[Part]], model: PreTrainedModel) -> str:
    """What a snapshot of transformers' own layers has that the model would not fill, by its config and its projections; "" for nothing."""
    decoder = model.get_decoder() or model
    layers, widths = len(DynamicCache(config=decoder.config)), _widths(decoder)
    dtypes = {parameter.dtype for parameter in model.parameters()}
    computing = {parameter.device.type for parameter in model.parameters()} - {"meta"}  # where offloaded weights are said to lie
    dtypes |= {torch.get_autocast_dtype(device) for device in computing if torch.is_autocast_enabled(device)}
    for *parts, _ in caches:
        own = {index: plain(part) for index, part in enumerate(parts) if part.kind == "plain"}
        if own and len(parts) != layers:
            return f"{len(parts)} layers, and the model {layers}"
        for index, held in own.items():
            for name, tensor in (("keys", held.keys), ("values", held.values)):
                heads, size = tensor.shape[1], tensor.shape[-1]
                if tensor.dtype not in dtypes:
                    return f"{name} in {tensor.dtype}, and the model {' and '.join(map(str, dtypes))}"
                if widths.get((index, name), heads * size) != heads * size:
                    return f"{name} of {heads} heads of {size}, and the model of {widths[index, name]} numbers in all"
    return ""


def _widths(decoder: nn.Module) -> dict[tuple[int, str], int]:
    """(layer, `keys` or `values`) -> numbers of a token's; without layers that project both at once, or by way of something smaller."""
    found: dict[tuple[int, str], int] = {}
    for module in decoder.modules():
        index = getattr(module, "layer_idx", None)
        for attribute, name in (("k_proj", "keys"), ("k", "keys"), ("v_proj", "values"), ("v", "values")):
            width = getattr(getattr(module, attribute, None), "out_features", None)
            if isinstance(index, int) and isinstance(width, int):
                found[index, name] = width
    return found


def _reason(error: OSError | SafetensorError) -> str:
    """Why a file cannot be written, without the place where it was tried; safetensors has the system's error in its text alone."""
    stated = re.search(r"\(os error (\d+)\)", str(error))
    number = int(stated.group(1)) if stated else getattr(error, "errno", None)
    return str(error) if number is None else os.strerror(number)


def _checksum(header: Header, tensors: dict[str, Tensor]) -> str:
    """SHA-256 of the header, and of the names, types, shapes and contents of tensors."""
    digest = hashlib.sha256(repr(replace(header, checksum="")).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
    return digest.hexdigest()
