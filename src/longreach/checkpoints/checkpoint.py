"""Loads and saves checkpoints: folders, GGUF files, models of the Hugging Face hub, and `nano`, the model that comes with longreach."""

import copy
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from longreach.attention.base import CrossRetrieval, EncoderTemperature
from longreach.checkpoints import _safety
from longreach.checkpoints._errors import disk_full, first_line, one_line
from longreach.checkpoints._folder import replacing
from longreach.checkpoints.adapters import check_is_model, find_adapter, merge_adapter
from longreach.checkpoints.choices import check_bits, check_choices
from longreach.checkpoints.export import edited, table_record, verify_export
from longreach.checkpoints.gguf import bars_as_chosen, find_weights, spread, unpacking
from longreach.checkpoints.hub import download, name_and_revision
from longreach.checkpoints.lasting import as_loaded, keep
from longreach.checkpoints.placement import find_device, find_dtype, four_bits
from longreach.checkpoints.places import MARKER, local_checkpoint, place_of
from longreach.checkpoints.record import Record, fitted_in, read_record
from longreach.checkpoints.spelling import beside, spell_out
from longreach.core.errors import CheckpointError, InputError, UnsupportedError
from longreach.core.method import Method
from longreach.core.spec import stack_of, unparse
from longreach.engine._text import remember_tokenizer
from longreach.engine.apply import apply
from longreach.engine.rope_config import FULL, ORIGINAL, SCALED_BY, rope_of, scaled_before, with_rope
from longreach.engine.weights import OWN_WEIGHTS, load_weights, own_weights
from longreach.engine.window import stated_window, trained_window, window_of
from longreach.positions.base import TableMethod, positions_of

__all__ = ["Checkpoint", "load", "save", "verify_export"]

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "spiece.model", "vocab.json", "vocab.txt")
_HUB_TEXT = ["*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"]  # configs and tokenizers; weights follow once these are accepted


class Checkpoint(NamedTuple):
    """A model in eval mode with its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def load(
    name: str | Path,
    *,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | None = None,
    load_in_4bit: bool = False,
    revision: str | None = None,
    adapter: str | Path | None = None,
    method: str | Method | Iterable[Method] | None = None,
    target: int | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    apply_method: bool = True,
    decoder_only: bool = False,
) -> Checkpoint:
    """Load a checkpoint, checked before anything in it is read into memory or run.

    Args: name: a folder, a GGUF file, a hub id, the link of a hub page, or `nano`, the bundled model (a folder of that name is `./nano`).
    dtype: float32, bfloat16, float16, or auto (as it is stored). None: auto on a GPU, and on a CPU that computes in bfloat16 from 50
    million parameters on; else float32 below a billion parameters, auto from there on and for quantized weights. device: as torch writes
    it; None: cuda where there is one, else cpu.
    device_map: auto, balanced, balanced_low_0 or sequential spread the weights over all devices, as accelerate does; instead of `device`.
    load_in_4bit: quantize the weights to 4 bits (NF4) while they are loaded; needs bitsandbytes.
    revision: branch, tag or commit of a hub model. adapter: a PEFT adapter, as a folder or hub id, merged into the weights.
    method: apply it for good, instead of the one that the checkpoint was saved with. target: tokens to reach, for a method that leaves
    out its settings.
    allow_pickle: also load weights that exist only as pickle. trust_remote_code: run code that the checkpoint brings.
    apply_method: apply the method that the checkpoint was saved with, for good. `model.longreach_undo.close()` takes off what was applied.
    decoder_only: refuse encoder-decoders.
    Raises: CheckpointError for whatever is missing, broken, unsafe or too large; InputError for an unknown dtype or device, and for
    arguments that exclude each other; UnsupportedError for a method that does not work on this model.
    """
    check_choices(dtype, device, device_map, load_in_4bit, adapter)
    place = find_device(device)
    if target is not None and method is None:
        raise InputError(f"target={target} is for a method, and none is given; give one, as method='yarn:factor=auto'")
    checkpoint = find_checkpoint(str(name), revision=revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    check_bits(checkpoint, load_in_4bit)
    label = str(name)
    with spread(checkpoint, label) as folder:
        record = read_record(folder)
        config = _config(folder, label, trust_remote_code=trust_remote_code, decoder_only=decoder_only)
        weights = find_weights(checkpoint, label, allow_pickle=allow_pickle)
        quantized = getattr(config, "quantization_config", None) is not None
        if quantized and load_in_4bit:
            raise InputError(f"{label} is quantized already; load it without load_in_4bit (--load-in-4bit)")
        if quantized and adapter is not None:
            why = "an adapter cannot be merged into its weights without loss"
            raise InputError(f"{label} is quantized, and {why}; merge it into the original")
        adapter_folder = None if adapter is None else find_adapter(str(adapter))
        wanted = find_dtype(dtype, weights, place, quantized=quantized or load_in_4bit)
        if device_map is None and not load_in_4bit:  # several devices share it, or 4 bits hold what 16 do not
            _safety.check_memory(label, weights, None if quantized else wanted, place)
        tokenizer = _tokenizer(folder, label, trust_remote_code=trust_remote_code)
        model = _model(
            folder, label, config, dtype=wanted or ("auto" if checkpoint.is_dir() else weights.stored),
            device_map=device_map or ({"": place} if place.type != "cpu" or load_in_4bit else None),
            use_safetensors=not weights.pickled, trust_remote_code=trust_remote_code,
            **({"quantization_config": four_bits()} if load_in_4bit else {}),
            **({} if checkpoint.is_dir() else unpacking(checkpoint)),
        )  # fmt: skip
        if adapter_folder is not None:
            with one_line(f"the adapter {adapter}"):
                model = merge_adapter(model, adapter_folder)
        model.eval()
        model.name_or_path = label  # not the folder of the hub's cache
        as_stored = weights.pickled or quantized or load_in_4bit
        vars(model).update(longreach_record=record, longreach_stored=None if as_stored else weights.stored)
        remember_tokenizer(model, tokenizer)
        with one_line(label):
            load_weights(model, folder / OWN_WEIGHTS, None if record is None else record.method)
    if method is not None:
        stack = stack_of(method, trained_window=stated_window(model.config), target=target)
        chosen = Record(method=unparse(stack), exported=False, trained_window=window_of(model), target=target, fitted=fitted_in(stack))
        keep(model, chosen)
        tokenizer.model_max_length = target or tokenizer.model_max_length
    elif record is not None and record.method and not record.exported and apply_method:
        keep(model, record)
        tokenizer.model_max_length = record.target
    return Checkpoint(model, tokenizer)


def _model(folder: Path, label: str, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """The model with its weights. Raises: CheckpointError where weights of it are missing."""
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    with one_line(label), bars_as_chosen() if "gguf_file" in options else nullcontext():
        loaded: Any = auto.from_pretrained(folder, config=config, output_loading_info=True, **options)
    model, report = loaded  # `output_loading_info` makes it a pair
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise CheckpointError(f"{label} lacks {len(missing)} of its model's weights (the first: {missing[0]}); it is not whole")
    found: PreTrainedModel = model
    return found


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    *,
    method: str | Method | Iterable[Method] | None = None,
    target: int | None = None,
) -> Path:
    """Save a checkpoint as a whole: whatever happens meanwhile, `folder` holds all of the old one or all of the new one.

    Exportable positions methods are written into the config, in the spelling of transformers 5 and in that of older programs, and the
    folder loads anywhere without longreach; `verify_export` proves it.
    Other methods, and rope types that this family's config does not take, are named in `longreach.json`, and `load` applies them:
    `read_record(folder).exported` says which it was. The weights are the same either way, and stand in the dtype in which they were
    stored before wherever that loses nothing.
    Args: folder: made or, where longreach wrote it, replaced. method: None keeps the one that the model was loaded with, an empty spec
    drops it. target: tokens the checkpoint is meant for; needed with a method, unless that lengthens a table of positions, which says
    it. Without a method, it states how far the model was trained.

    Returns: the folder. A folder that longreach did not write is never replaced.
    Raises: InputError; UnsupportedError for a method that does not work on this model; CheckpointError where it cannot be written.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(f"{type(model).__name__} is not a transformers model; merge adapters first (merge_and_unload)")
    place = place_of(folder)
    with as_loaded(model):
        record, changes = _plan(model, method, target)
        needed = model.get_memory_footprint()
        try:
            with replacing(place) as new:
                if shutil.disk_usage(new).free < needed:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                with _lengthened(model, record):
                    _write(model, tokenizer, new, record, changes)
        except (OSError, ValueError, SafetensorError) as error:
            why = f"the disk is full (it takes {_safety.amount(needed)})" if disk_full(error) else first_line(error)
            raise CheckpointError(f"cannot save to {folder}: {why}; nothing was changed there") from error
    return place


def find_checkpoint(
    name: str,
    *,
    revision: str | None = None,
    allow_pickle: bool = False,
    trust_remote_code: bool = False,
    weights: bool = True,
) -> Path:
    """The folder or GGUF file that is the checkpoint, fetched from the hub where it has to be.

    Args: name: a folder, a GGUF file, a hub id, the link of a hub page, or `nano`. revision: branch, tag or commit of
    a hub model. weights: fetch them, too, where the checkpoint is one that can be loaded.
    Raises: CheckpointError where there is none; InputError for a revision of what is not on the hub.
    """
    here = local_checkpoint(name, revision)
    if here is not None:
        return here
    name, revision = name_and_revision(name, revision)
    return _fetch(name, revision, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code, weights=weights)


def load_tokenizer(name: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint alone. Raises: CheckpointError where there is none."""
    with spread(find_checkpoint(name, trust_remote_code=trust_remote_code, weights=False), name) as folder:
        return _tokenizer(folder, name, trust_remote_code=trust_remote_code)


def _fetch(name: str, revision: str | None, *, allow_pickle: bool, trust_remote_code: bool, weights: bool) -> Path:
    """The snapshot of a hub model: first what describes it, then, once that is accepted, its weights."""
    folder = download(name, revision, [*_HUB_TEXT, *(["*.py"] if trust_remote_code else [])])
    if weights:
        _config(folder, name, trust_remote_code=trust_remote_code)
        download(name, revision, _safety.weight_files(folder, _safety.INDEX, _safety.SINGLE))
        if allow_pickle and not any((folder / file).is_file() for file in (_safety.INDEX, _safety.SINGLE)):
            download(name, revision, _safety.weight_files(folder, _safety.PICKLED_INDEX, _safety.PICKLED))
    return folder


def _config(folder: Path, label: str, *, trust_remote_code: bool, decoder_only: bool = False) -> PreTrainedConfig:
    """The config of a causal language model or of an encoder-decoder, read without running code of the checkpoint."""
    check_is_model(folder, label)
    if not trust_remote_code:
        _safety.check_no_code(folder, label)
    with one_line(label):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if trust_remote_code and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return config
    named = config.architectures or []
    what = ", ".join(named) or config.model_type
    if config.is_encoder_decoder and type(config) in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
        if decoder_only:
            raise CheckpointError(f"{label} is an encoder-decoder ({what}), and this needs a causal language model; generate takes both")
        usual = getattr(MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING[type(config)], "__name__", "")
        if not named or any(name == usual or name.endswith(("ForConditionalGeneration", "MTModel")) for name in named):
            return config
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not config.is_encoder_decoder
    # Some configs (BERT, Llama) serve several kinds of model; then the class that was saved decides.
    usual = getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], "__name__", "") if causal else ""
    if not causal or (named and not any(name == usual or name.endswith(("ForCausalLM", "LMHeadModel")) for name in named)):
        either = "" if decoder_only else ", nor an encoder-decoder that writes"
        raise CheckpointError(f"{label} is not a causal language model{either} (it is {what})")
    return config


def _tokenizer(folder: Path, label: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    if not any((folder / file).is_file() for file in _TOKENIZERS) and not any(folder.glob("*.tiktoken")):
        raise CheckpointError(f"{label} has no tokenizer (none of {', '.join(_TOKENIZERS)})")
    with one_line(f"the tokenizer of {label}"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise CheckpointError(f"the tokenizer of {label} has no vocabulary; its files are incomplete")
    return tokenizer


def _plan(
    model: PreTrainedModel, method: str | Method | Iterable[Method] | None, target: int | None
) -> tuple[Record, dict[str, Any] | None]:
    """What to write into longreach.json, and which values of the config change (None: none)."""
    carried: Record | None = vars(model).get("longreach_record")
    if method is None and carried is not None:
        if target is None and carried.target is None and carried.method and not carried.exported:
            raise InputError(f"{carried.method} is to be saved without a target; give the tokens that the checkpoint is meant for")
        if target in (None, carried.target):
            return carried, None
        method = carried.method if not carried.exported else None
    text = model.config.get_text_config()
    stack = stack_of(method, trained_window=None if target is None else stated_window(text), target=target)
    if not stack and target is None and carried is not None and carried.original is not None and getattr(text, SCALED_BY, None):
        return Record(target=carried.trained_window, trained_window=carried.trained_window), carried.original
    if not stack and (target is None or target == trained_window(text)):
        return Record(target=target, trained_window=target), None
    spec = unparse(stack) or f"target={target}"
    if len(stack) == 1 and isinstance(stack[0], TableMethod):
        return table_record(model, stack[0], target), None
    if target is None:
        raise InputError(f"{spec} is to be saved without a target; give the tokens that the checkpoint is meant for")
    reading = (each for each in stack if isinstance(each, EncoderTemperature | CrossRetrieval))
    stated = next((window for each in reading if (window := each.stated_window())), None)
    window = stated or window_of(model)
    if target < window:
        raise InputError(f"target={target} is below the {window} tokens that the model was trained on")
    if not stack:
        rope_of(text, method=spec)  # refuses models whose positions end with the window
        if scaled := getattr(text, SCALED_BY, None) or scaled_before(text):
            why = f"its rotary embedding is scaled already ({scaled}), and that says how far"
            raise UnsupportedError(spec, text.model_type, why, "give a method that reaches so far, on top of it")
        return Record(target=target, trained_window=target), {"max_position_embeddings": target}
    with apply(model, stack):  # refuses now what `load` could not apply later, and what would do nothing
        pass
    changes = _exported(model, stack, target)
    if changes is None:
        return Record(method=spec, exported=False, trained_window=window, target=target, fitted=fitted_in(stack)), None
    original = copy.deepcopy({**beside(text, changes["rope_parameters"]), **{name: getattr(text, name, None) for name in changes}})
    record = Record(method=spec, exported=True, trained_window=window, target=target, original=original, fitted=fitted_in(stack))
    return record, changes


@contextmanager
def _lengthened(model: PreTrainedModel, record: Record) -> Iterator[None]:
    """Inside, the model has the table that is to be exported; a model that was loaded with one has it already."""
    method = stack_of(record.method) if record.exported and record is not vars(model).get("longreach_record") else ()
    with apply(model, method if any(isinstance(each, TableMethod) for each in method) else None):
        yield


def _exported(model: PreTrainedModel, stack: tuple[Method, ...], target: int) -> dict[str, Any] | None:
    """The values by which the model's config expresses the method, or None where it cannot."""
    method, text = positions_of(stack), model.config.get_text_config()
    if method is None or not method.info.exportable or any(each.kind != method.kind for each in stack):
        return None
    changes: dict[str, Any] = {"rope_parameters": with_rope(text, method), "max_position_embeddings": target, SCALED_BY: method.spec}
    if changes["rope_parameters"].get(FULL, {}).get("rope_type") == "longrope":
        return None  # transformers before 5.23 fails beyond the window where longrope is one of several embeddings
    if hasattr(text, ORIGINAL):  # where it is there (Phi-3), transformers prefers it
        changes[ORIGINAL] = changes["rope_parameters"].get(ORIGINAL, trained_window(text))
    try:
        type(text).from_dict(edited(text, changes).to_dict())
    except (StrictDataclassError, ValueError, KeyError):
        return None  # this family's config knows only some rope types
    return changes


def _write(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, record: Record, changes: dict[str, Any] | None
) -> None:
    dtype = _lossless_dtype(model)
    own = own_weights(model)
    state = _cast(model, dtype) or (model.state_dict() if own else None)
    # Past the watch of a table that is lengthened for this, which refuses to save.
    PreTrainedModel.save_pretrained(
        model, folder, state_dict={name: value for name, value in state.items() if name not in own} if state and own else state
    )
    if own:  # in a file of their own: other readers of the checkpoint do not know them
        save_file({name: value.detach().contiguous() for name, value in own.items()}, folder / OWN_WEIGHTS)
    if changes is not None or dtype != model.dtype:
        config = edited(model.config, changes or {})
        config.dtype = dtype
        config.save_pretrained(folder)
    spell_out(folder, model.config)
    if record.target is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.model_max_length = record.target if record.exported else record.trained_window
    tokenizer.save_pretrained(folder)
    record.write(folder)
    for weights in folder.glob("*.safetensors"):
        weights.chmod((folder / MARKER).stat().st_mode & 0o666)  # safetensors makes them private, unlike every other file


def _lossless_dtype(model: PreTrainedModel) -> torch.dtype:
    """The dtype that the weights were stored in where it still holds them exactly (they may have been trained since), else the model's."""
    stored: torch.dtype = vars(model).get("longreach_stored") or model.dtype
    lossless = stored == model.dtype or all(torch.equal(value, value.to(stored).to(value.dtype)) for value in model.parameters())
    return stored if lossless else model.dtype


def _cast(model: PreTrainedModel, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """The model's weights in `dtype`, tied ones still tied; None: as they are."""
    if dtype == model.dtype:
        return None
    done: dict[int, torch.Tensor] = {}
    for value in model.state_dict().values():
        if value.data_ptr() not in done:
            done[value.data_ptr()] = value.to(dtype) if value.is_floating_point() else value
    return {name: done[value.data_ptr()] for name, value in model.state_dict().items()}
