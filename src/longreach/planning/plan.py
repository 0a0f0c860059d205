"""Which methods fit a model, a text, a batch and a machine: bytes measured on a small twin, and about how fast."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from longreach.attention.base import AttentionPolicy
from longreach.cache.base import CachePolicy
from longreach.checkpoints import _safety
from longreach.checkpoints.adapters import check_is_model
from longreach.checkpoints.checkpoint import find_checkpoint
from longreach.checkpoints.checkpoint import load as load_checkpoint
from longreach.checkpoints.choices import check_choices
from longreach.checkpoints.gguf import find_weights, spread
from longreach.checkpoints.placement import find_device, find_dtype
from longreach.checkpoints.places import checkpoint_name
from longreach.core.bands import PROBE, TRUE, Band, Selection
from longreach.core.errors import CheckpointError, InputError, LongreachError, UnsupportedError
from longreach.core.memory import Blocks, Carried, Clustered, HeadGroup, Kept
from longreach.core.method import Method
from longreach.core.spec import check_spec, parse, unparse
from longreach.decoding.reading import CHUNK
from longreach.diagnosis.memory import SHARE
from longreach.diagnosis.used import read_used
from longreach.engine.reach import reach_of
from longreach.planning.choosing import to_compare
from longreach.planning.machine import Machine, machine
from longreach.planning.timing import TIMED, timed
from longreach.planning.weighing import CacheScale, Weight

ENDLESS = 1 << 24  # tokens: what fits so far is taken to have no end
_FINE = 256  # the longest text is found to one part in so many


@dataclass(frozen=True, kw_only=True)
class Load:
    """Args: weights: bytes, of which `parameters` are multiplied with every token. room: bytes of memory that may be used. host_counts: the
    host's memory is the device's. window: trained tokens.
    """

    weights: int
    parameters: int
    room: int
    host_counts: bool
    context: int
    batch: int
    new: int
    window: int | None


@dataclass(frozen=True, kw_only=True)
class PlannedMethod:
    """One method in a plan; bytes are of the whole batch.

    Args: spec: "" for the model as it is. fits: whether `peak` does. reading: bytes of the cache where the prompt ends. answered: after the
    new tokens. peak: the most memory, with the weights, and the largest layer once more, for that is copied while it grows. host, disk:
    bytes of the cache outside the device. longest: tokens of a prompt that fits, None without an end, 0 where none is known. largest_batch:
    texts of this length that fit. reach: tokens that the model reads so as it was trained, None without an end. reaches: whether that is
    enough. lost: what is no longer as it was: `text` (some is forgotten), `attention` (a query sees a part of the text), `positions`,
    `precision` (of what is kept). prefill_seconds, tokens_per_second: of the whole batch. error: share by which the line that bytes are
    read off misses a third measurement; None where the length itself was measured.
    """

    spec: str
    fits: bool
    reading: int
    answered: int
    peak: int
    host: int
    disk: int
    longest: int | None
    largest_batch: int
    reach: int | None
    reaches: bool
    lost: tuple[str, ...]
    prefill_seconds: float
    tokens_per_second: float
    error: float | None


@dataclass(frozen=True, kw_only=True)
class ResourcePlan:
    """What a model takes under each method.

    Args: weights: bytes in `dtype`. memory: bytes of the device, a tenth of which is left for activations and what else runs. window:
    tokens trained on, None where none is stated. flops, reads: of the machine, a second. measured_tokens: of the texts that were read to
    time it; None: speed is an estimate. methods: those that fit and lose least first. refused: spec -> why the model cannot be run so.
    """

    model: str
    context: int
    batch: int
    new_tokens: int
    dtype: str
    device: str
    weights: int
    weights_here: bool
    memory: int
    window: int | None
    flops: float
    reads: float
    measured_tokens: int | None
    methods: tuple[PlannedMethod, ...]
    refused: dict[str, str] = field(default_factory=dict)


def plan_memory(
    model: str | Path,
    *,
    context: int,
    batch: int = 1,
    memory: int | None = None,
    methods: Iterable[str] | None = None,
    new_tokens: int = 256,
    measure: bool = False,
    revision: str | None = None,
    dtype: str | None = None,
    device: str | torch.device | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
) -> ResourcePlan:
    """Tell which methods fit into memory for a text of `context` tokens, what each takes, and about how fast it is. Nothing is loaded.

    Bytes of caches are measured on a small twin of the model (its layers, one head, few dimensions) at short lengths. Weights are those of
    the checkpoint's files, or where only its config is here, of its shape. Activations are not counted. Speed is a roofline of this
    machine, measured in a second: products of matrices for reading, memory for writing.

    Args: model: a folder (config.json is enough), a GGUF file, a hub id, or `nano`. context: tokens of each prompt. batch: texts at a time.
    memory: bytes (default: what the device has free now). methods: specs (default: the model as it is, cache methods, and what stretches
    it to the context). new_tokens: written after the prompt. measure: time a short run of the model itself instead of an estimate.
    revision, dtype, device, allow_pickle, trust_remote_code: those of `load`.

    Raises: InputError for arguments that cannot be, and where the weights alone do not fit; SpecError for a method that there is none of;
    CheckpointError for what is no checkpoint of a causal language model.
    """
    for name, value in (("context", context), ("batch", batch), ("new_tokens", new_tokens), ("memory", memory)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value} must be at least 1")
    check_choices(dtype, device, None, False, None)
    place, named = find_device(device), None if methods is None else list(methods)
    for spec in filter(None, named or ()):
        check_spec(spec)
    loading: dict[str, Any] = {"revision": revision, "allow_pickle": allow_pickle, "trust_remote_code": trust_remote_code}
    subject = _planned(str(model), place, dtype, **loading)
    free = _safety.available_bytes(place) if memory is None else memory
    if free is None:
        raise InputError(f"how much memory {place} has free is not known; say it with --memory, as 24GiB")
    kind = str(subject.dtype).removeprefix("torch.")
    if subject.weights > SHARE * free:
        sizes = f"{_safety.amount(subject.weights)} in {kind}, and {_safety.amount(int(SHARE * free))} may be used"
        raise InputError(f"the weights of {model} alone take {sizes}; give more --memory, or choose a smaller --dtype or model")
    if measure and not subject.weights_here:
        raise InputError(f"--measure runs the model, and the weights of {model} are not here")
    load = Load(
        weights=subject.weights, parameters=subject.multiplied, room=int(SHARE * free), host_counts=place.type == "cpu",
        context=context, batch=batch, new=new_tokens, window=subject.window,
    )  # fmt: skip
    window, rated = subject.window, machine(place, subject.dtype)
    stacks = to_compare(window, context) if named is None else [_meant(spec, window, context) for spec in named]
    rows, refused = _compare(CacheScale(subject.config, subject.dtype, context), load, stacks, rated, strict=named is not None)
    if measure:
        loaded = load_checkpoint(str(model), dtype=dtype, device=place, apply_method=False, **loading)
        rows = timed(loaded.model, rows, min(context, TIMED), batch)
    return ResourcePlan(
        model=checkpoint_name(str(model), revision), context=context, batch=batch, new_tokens=new_tokens, dtype=kind, device=str(place),
        weights=subject.weights, weights_here=subject.weights_here, memory=free, window=window, flops=rated.flops, reads=rated.reads,
        measured_tokens=min(context, TIMED) if measure else None, methods=tuple(sorted(rows, key=_rank)), refused=refused,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PlannedCheckpoint:
    """A checkpoint. Args: weights: bytes in `dtype`. multiplied: parameters that every token is multiplied with."""

    config: PreTrainedConfig
    window: int | None
    dtype: torch.dtype
    weights: int
    weights_here: bool
    multiplied: int


def _planned(
    model: str, place: torch.device, dtype: str | None, *, revision: str | None, allow_pickle: bool, trust_remote_code: bool
) -> PlannedCheckpoint:  # fmt: skip
    here = find_checkpoint(model, revision=revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, weights=False)
    with spread(here, model, tokenizer=False) as folder:
        check_is_model(folder, model)
        if not trust_remote_code:
            _safety.check_no_code(folder, model)
        used = read_used(folder, trust_remote_code=trust_remote_code)
    config = used.config
    if config is None or used.model is None:
        raise CheckpointError(f"{model} cannot be planned: {used.failure}; see longreach doctor")
    if not used.causal:
        raise InputError(f"{model} is no causal language model, which alone has a cache to plan")
    parameters, multiplied = _parameters(used.model)
    found = _weights(here, model, allow_pickle=allow_pickle)
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    weights = found or _safety.Weights(pickled=False, sizes=((stored, parameters, parameters * stored.itemsize),))
    quantized = getattr(config, "quantization_config", None) is not None
    chosen = find_dtype(dtype, weights, place, quantized=quantized)
    return PlannedCheckpoint(
        config=config, window=used.window, dtype=chosen or weights.stored or stored,
        weights=weights.bytes_in(None if quantized else chosen),
        weights_here=found is not None, multiplied=multiplied,
    )  # fmt: skip


def _meant(spec: str, window: int | None, context: int) -> tuple[Method, ...]:
    return parse(spec, trained_window=window, target=context) if spec else ()


def _parameters(model: torch.nn.Module) -> tuple[int, int]:
    """Parameters of a model on `meta`, and how many of them every token is multiplied with."""
    total = sum(each.numel() for each in model.parameters())
    tables = {
        id(each): each.numel() for module in model.modules() if isinstance(module, torch.nn.Embedding) for each in module.parameters()
    }
    return total, total - sum(tables.values())


def _weights(here: Path, name: str, *, allow_pickle: bool) -> _safety.Weights | None:
    """The weights in a checkpoint's files; None where there are none."""
    patterns = ("*.safetensors", "*.bin", "*.pt", "*.pth")
    if here.is_dir() and not any(file for pattern in patterns for file in here.glob(pattern)):
        return None
    return find_weights(here, name, allow_pickle=allow_pickle)


def _compare(
    scales: CacheScale, load: Load, stacks: Sequence[tuple[Method, ...]], rated: Machine, *, strict: bool
) -> tuple[list[PlannedMethod], dict[str, str]]:
    """A row for each stack, and why the others cannot be applied. Args: strict: then that is an error."""
    stock, rows, refused = scales.weigh(()), list[PlannedMethod](), dict[str, str]()
    for stack in stacks:
        try:
            weight = scales.weigh(stack)
        except LongreachError as error:
            if strict:
                raise
            refused[unparse(stack)] = error.reason if isinstance(error, UnsupportedError) else str(error)
        else:
            speed = _speed(weight, stock, stack, load, scales, rated)
            rows.append(_row(weight, stack, load, speed))
    return rows, refused


def _row(weight: Weight, stack: tuple[Method, ...], load: Load, speed: tuple[float, float]) -> PlannedMethod:
    reading, answered = (weight.kept(load.context, new) for new in (0, load.new))
    each = _of_one(weight, load, load.context)
    peak = load.weights + load.batch * each
    reach = load.window and reach_of(stack, load.window)
    return PlannedMethod(
        spec=unparse(stack), fits=peak <= load.room, reading=load.batch * reading["device"], answered=load.batch * answered["device"],
        peak=peak, host=load.batch * answered["host"], disk=load.batch * answered["disk"], longest=_longest(weight, load),
        largest_batch=max(0, (load.room - load.weights) // max(1, each)), reach=reach, reaches=reach is None or reach >= load.context,
        lost=_lost(stack), prefill_seconds=speed[0], tokens_per_second=speed[1], error=weight.error,
    )  # fmt: skip


def _of_one(weight: Weight, load: Load, tokens: int) -> int:
    """The most bytes that the cache of one text takes on the device, with room for the layer that is copied as it grows."""
    stages = [weight.kept(tokens, new) for new in (0, load.new)]
    return max(held["device"] + load.host_counts * held["host"] for held in stages) + weight.largest(tokens)


def _longest(weight: Weight, load: Load) -> int | None:
    """The longest prompt that fits under the settings of the plan, to one part in 256."""

    def fits(tokens: int) -> bool:
        return load.weights + load.batch * _of_one(weight, load, tokens) <= load.room

    low, high = 0, CHUNK
    while fits(high):
        low, high = high, 2 * high
        if low >= ENDLESS:
            return None
    while high - low > max(1, low // _FINE):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _speed(weight: Weight, stock: Weight, stack: Sequence[Method], load: Load, scales: CacheScale, rated: Machine) -> tuple[float, float]:
    """Seconds to read the prompts, and tokens a second to write, about: as fast as the machine multiplies, or reads its memory."""
    m, tokens = scales.measures, load.context
    everything = stock.read(tokens) / (2 * m.kv_heads * m.head_dim * scales.dtype.itemsize)  # keys that the last query sees, in all layers
    rounds = any(isinstance(method, CachePolicy) and method.rounds for method in stack)
    seen = everything if rounds else everything * min(1.0, weight.read(tokens) / max(1, stock.read(tokens)))
    pairs = seen * tokens * (1 - min(1.0, seen / (len(m.layers) * tokens)) / 2)
    prefill = load.batch * (2 * load.parameters * tokens + 4 * m.heads * m.head_dim * pairs) / rated.flops
    read = load.weights + load.batch * weight.read(tokens, load.new)
    a_token = max(read / rated.reads, 2 * load.batch * load.parameters / rated.flops)
    return prefill, load.batch / a_token


def _lost(stack: Iterable[Method]) -> tuple[str, ...]:
    """What is no longer as it was, by what the methods declare: see `PlannedMethod.lost`."""
    words = []
    for method in stack:
        if method.info.forgets:
            words.append("text")
        views = (method.views(PROBE) if isinstance(method, AttentionPolicy | CachePolicy) else None) or ()
        moved = any(not view.queries == view.keys == TRUE for view in views if isinstance(view, Band | Selection))
        sees_less = method.kind == "attention" and bool(views) and not moved
        if method.info.changes_positions or method.kind == "positions" or (method.kind == "attention" and not sees_less):
            words.append("positions")
        if sees_less or any(isinstance(view, Blocks | Carried | Clustered | HeadGroup | Selection) for view in views):
            words.append("attention")
        if (isinstance(method, CachePolicy) and method.rounds) or any(isinstance(view, Kept) and view.thinner for view in views):
            words.append("precision")
        if not method.info.training_free:
            words.append("needs training")
    return tuple(dict.fromkeys(words))


def _rank(row: PlannedMethod) -> tuple[bool, bool, bool, int, int, str]:
    """What fits comes first, then what reaches, then what loses least, then what is small."""
    return not row.fits, not row.reaches, "text" in row.lost, len(row.lost), row.peak, row.spec
