"""Applies methods to a loaded model, and undoes it completely."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from longreach.attention.base import (
    AttentionPolicy,
    Chunks,
    CrossRetrieval,
    EncoderMemory,
    EncoderTemperature,
    FollowsLength,
    Packs,
    ReadsSets,
    ReadsText,
)
from longreach.cache.base import CachePolicy, with_wrappers
from longreach.core.errors import InputError, UnsupportedError
from longreach.core.method import Method
from longreach.core.spec import stack_of, unparse
from longreach.engine import _text, engine
from longreach.engine.biased import tempered
from longreach.engine.chunked import in_chunks
from longreach.engine.contexts import contexts
from longreach.engine.cross import retrieved
from longreach.engine.examine import examine
from longreach.engine.packed import packed
from longreach.engine.reach import reach_of
from longreach.engine.rope_config import rope_of, with_rope
from longreach.engine.rotation import Attention, UnscaledEmbedding, length_kept, rotary_modules, turns_by, unscaled_tokens
from longreach.engine.sets import reads_sets
from longreach.engine.setup import Frequencies, Setup
from longreach.engine.tables import lengthened
from longreach.engine.version import check_version
from longreach.engine.waiting import waiting
from longreach.engine.watch import watched
from longreach.engine.weights import check_weights
from longreach.engine.window import stated_window, trained_window
from longreach.positions.base import PositionsMethod, Rope, TableMethod, positions_of

_APPLIED = "_longreach_applied"
M = TypeVar("M")


def applied(model: PreTrainedModel) -> str:
    """The spec of what is applied to the model; "" where nothing is."""
    return str(given_model(model).__dict__.get(_APPLIED, ""))


def runs_attention(model: PreTrainedModel) -> bool:
    """Whether a method is applied that has attention computed by longreach; then no mask but padding can be given."""
    return any(engine.NAME in vars(module) for module in model.modules())


@contextmanager
def apply(
    model: M,
    methods: str | Method | Sequence[str | Method] | None,
    *,
    target: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    warn: bool = True,
) -> Iterator[M]:
    """Inside the context, `model` works under `methods`: a spec (`self_extend:neighbours=128,group=8+log_n`), or methods.

    An empty spec or None changes nothing. One positions method and one cache policy, with any wrappers behind them, and one attention
    policy can stand together, with any number of policies that only scale or bias logits. Methods for encoder-decoders stand alone, and a
    memory for an encoder beside learned positions.
    Args: model: of transformers, also inside a PEFT wrapper, a SentenceTransformer or a pipeline. methods: several may also be a list.
    target: tokens to reach, for `factor=auto` in a spec and for methods without settings. tokenizer: of the model, for
    methods that read the text, where the model was not loaded with `longreach.load`. warn: where a text is longer than the methods reach.
    Raises: SpecError; UnsupportedError for a model or a pair that cannot work.
    """
    check_version()
    if not methods:
        yield model
        return
    inner = unwrapped(model)
    stack = stack_of(methods, trained_window=None if target is None else stated_window(inner.config), target=target)
    with _applied(inner, stack, tokenizer, warn) if stack else nullcontext():
        yield model


@contextmanager
def _applied(model: PreTrainedModel, stack: Sequence[Method], tokenizer: PreTrainedTokenizerBase | None, warn: bool) -> Iterator[None]:
    name = unparse(stack)
    check_unapplied(model, stack)
    for method in stack:
        if not isinstance(method, (PositionsMethod, TableMethod, AttentionPolicy, CachePolicy, EncoderMemory, *_TWO_SIDED, *_RUN)):
            why = f"it is a method of the kind {method.kind!r}, which changes no model"
            raise UnsupportedError(method.spec, type(model).__name__, why, "see longreach methods --kind positions for one that does")
    stack = with_wrappers(stack)
    with ExitStack() as undo:
        model.__dict__[_APPLIED] = name
        undo.callback(model.__dict__.pop, _APPLIED, None)
        undo.enter_context(length_kept(model))
        window, adopt = stated_window(model.config), None
        reach = None if window is None else reach_of(stack, window)
        for method in stack:
            for run in (run for contract, run in _TWO_SIDED.items() if isinstance(method, contract)):
                _alone(method, stack)
                undo.enter_context(run(model, method))
            if isinstance(method, EncoderMemory):
                _with_tables(method, stack)
                undo.enter_context(waiting(model, method))
        policies = [method for method in stack if isinstance(method, AttentionPolicy | CachePolicy)]
        if policies:  # before frequencies change: without any (nope), what the model does with them could not be seen
            _examined(name, model, trained_window(model.config.get_text_config()))
        tables, positions = [method for method in stack if isinstance(method, TableMethod)], positions_of(stack)
        _only(name, tables if positions is None else [*tables, positions], "positions methods")
        for table in tables:
            undo.enter_context(lengthened(model, table))
        by_engine = bool(policies) or (positions is not None and positions.needs_engine)
        # What the model was trained on: under YaRN's frequencies its config tells the window that they reach.
        trained = trained_window(model.config.get_text_config()) if by_engine else 0
        if positions is not None and not positions.needs_engine:
            _check_full_layers(name, model, positions)
            undo.enter_context(_frequencies(model, positions))
        if by_engine:
            attentions = _examined(name, model, trained)
            full = [layer for each, layer in zip(attentions, contexts(model, attentions, trained), strict=True) if each.window is None]
            check_weights(stack, model, full)
            setup = replace(_setup(name, model, policies, positions, attentions), text=_reader(model, policies, trained, tokenizer))
            _check_effect(name, model, stack, attentions)
            adopt = undo.enter_context(engine.installed(model, attentions, setup, trained)).adopt
        running = [(method, run) for method in stack for contract, run in _RUN.items() if isinstance(method, contract)]
        if _only(name, [method for method, _ in running], "methods that say how attention is run"):
            method, run = running[0]
            _check_running(method, model, policies or ([positions] if by_engine else []))
            undo.enter_context(run(model, method))
        undo.enter_context(watched(model, name, reach, warn=warn, adopt=adopt))
        yield


def _alone(method: Method, stack: Sequence[Method]) -> None:
    for other in stack:
        if other is not method:
            raise UnsupportedError(method.spec, other.spec, "a method for models with an encoder stands alone", "keep one of them")


# Contracts of methods for models with an encoder of their own.
_TWO_SIDED: dict[type[Method], Callable[[PreTrainedModel, Any], AbstractContextManager[None]]] = {
    EncoderTemperature: tempered,
    CrossRetrieval: retrieved,
}
# Contracts of methods that say how attention is run, over which tokens or in which pieces, and not what it is.
_RUN: dict[type[Method], Callable[[PreTrainedModel, Any], AbstractContextManager[None]]] = {
    Packs: packed,
    ReadsSets: reads_sets,
    Chunks: in_chunks,
}


def _check_running(method: Method, model: PreTrainedModel, computed: Sequence[Any]) -> None:
    """Refuse what cannot stand beside a method that says how attention is run. Args: computed: methods that the engine has to compute."""
    for other in computed:
        why = "it says how the model's own attention is run, and the other method has longreach compute attention"
        raise UnsupportedError(method.spec, other.spec, why, "keep one of them; methods that only change frequencies can stand beside it")
    if model.config.is_encoder_decoder:
        why = "it is an encoder-decoder, whose texts meet in more than one attention"
        raise UnsupportedError(method.spec, type(model).__name__, why, "choose an encoder or a causal language model")


def _with_tables(method: EncoderMemory, stack: Sequence[Method]) -> None:
    for other in stack:
        if other is not method and not isinstance(other, TableMethod):
            why = "beside a memory for an encoder only learned positions may change"
            raise UnsupportedError(method.spec, other.spec, why, "leave one of them out")


def _check_full_layers(name: str, model: PreTrainedModel, positions: PositionsMethod) -> None:
    """Refuse where only the layers with a sliding window have a rotary embedding (Cohere2, EXAONE 4)."""
    layer_types = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if len(set(layer_types)) == 1 or "sliding_attention" not in layer_types or _full_layer_type(model) is not None:
        return
    try:
        attentions = _examined(name, model, trained_window(model.config.get_text_config()))
    except UnsupportedError:  # the engine cannot tell, and frequencies do not need it
        return
    _check_effect(name, model, [positions], attentions)


def _check_effect(name: str, model: PreTrainedModel, stack: Sequence[Method], attentions: Sequence[Attention]) -> None:
    """Refuse what would silently do nothing."""
    full = [attention for attention in attentions if attention.window is None]
    if not full:
        why = "all its layers have a sliding window of their own, so no query ever sees beyond it"
        raise UnsupportedError(name, type(model).__name__, why, "nothing has to be extended")
    for method in stack:
        if all(attention.rotation is None for attention in full) and (method.info.changes_positions or method.kind == "positions"):
            why = "its full-attention layers use no positions, so there is nothing to change"
            raise UnsupportedError(method.spec, type(model).__name__, why, "leave it out; log_n and methods that bound memory do work")


def given_model(model: Any) -> Any:
    """The model that is meant, as functions take it: itself, or the one that `unwrapped` finds. Raises: InputError."""
    wrapped = hasattr(model, "get_base_model") or not hasattr(model, "config")
    return unwrapped(model) if wrapped or not isinstance(model, nn.Module) else model


def check_unapplied(model: PreTrainedModel, stack: Sequence[Method]) -> None:
    """Raise UnsupportedError where something is applied to the model already."""
    if inside := applied(model):
        why, instead = f"{inside} is applied to it", "leave that first, or stack methods with +"
        raise UnsupportedError(unparse(stack), type(model).__name__, why, instead)


def unwrapped(model: Any) -> PreTrainedModel:
    """The transformers model in a PEFT wrapper, a SentenceTransformer, a pipeline, or a checkpoint as `load` gives it.

    Raises: InputError for anything else.
    """
    if hasattr(model, "get_base_model"):  # PEFT, whose `generate` goes past the wrapper
        model = model.get_base_model()
    elif not isinstance(model, nn.Module) and isinstance(getattr(model, "model", None), nn.Module):
        model = model.model
    found = model if isinstance(model, PreTrainedModel) else None
    if found is None and isinstance(model, nn.Module):
        found = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), None)
    if found is None:
        what = f"the name {model!r}" if isinstance(model, str) else f"a {type(model).__name__}"
        raise InputError(f"a loaded transformers model is needed, not {what}; model, tokenizer = longreach.load(...) gives one")
    return found


def _examined(name: str, model: PreTrainedModel, window: int) -> list[Attention]:
    if model.config.is_encoder_decoder:
        why = "it is an encoder-decoder, whose text is not read in one row with what it writes"
        raise UnsupportedError(name, type(model).__name__, why, "choose a causal language model")
    try:
        return examine(model, window)
    except UnsupportedError as error:  # say it of what the user asked for
        raise UnsupportedError(name, error.model, error.why, error.try_instead) from None


def _only(name: str, found: list[Any], what: str) -> Any:
    if len(found) > 1:
        raise UnsupportedError(found[1].spec, found[0].spec, f"{name} has two {what}", "keep one of them")
    return found[0] if found else None


def _setup(
    name: str,
    model: PreTrainedModel,
    policies: Sequence[AttentionPolicy | CachePolicy],
    positions: PositionsMethod | None,
    attentions: Sequence[Attention],
) -> Setup:
    setup = Setup(policies=tuple(policies))
    seeing = _only(name, setup.seeing, "methods that decide what a query sees")
    _only(name, [policy for policy in policies if isinstance(policy, CachePolicy)], "cache policies")
    if positions is None or not positions.needs_engine:
        return setup
    if isinstance(seeing, FollowsLength):
        why = "both change with the length of the text, or the head"
        raise UnsupportedError(seeing.spec, positions.spec, why, "leave one of them out")
    rope = rope_of(model.config.get_text_config(), _full_layer_type(model), method=positions.spec)
    heads = {attention.num_kv_heads for attention in attentions if attention.window is None and attention.rotation is not None}
    if positions.info.per_head and len(heads) > 1:
        raise UnsupportedError(positions.spec, type(model).__name__, "its layers differ in their heads", "choose another positions method")
    rope = replace(rope, num_heads=max(heads, default=1))
    positions.inv_freq(rope, rope.trained_window)  # refuses now what was fitted to another model
    fixed, step, window = not positions.info.length_dependent, positions.length_step(rope) or 1, rope.trained_window

    def lengths(t: Tensor, long: bool) -> Tensor:
        if fixed:
            return torch.full_like(t, window)
        found = torch.where(t < window, window, (t // step + 1) * step)  # inside the window the length is not rounded up
        if rope.switch is None or long or int(t.max()) >= rope.switch:
            return found
        return torch.full_like(t, rope.switch)  # as in transformers, the largest position decides for all

    frequencies = Frequencies(
        lengths=lengths, inv_freq=lambda length: positions.inv_freq(rope, length), fixed=fixed, mixture=positions.mixture(rope)
    )
    return replace(setup, frequencies=frequencies, plain_inside=window if positions.info.plain_inside and not policies else None)


def _reader(
    model: PreTrainedModel, policies: Sequence[Method], window: int, tokenizer: PreTrainedTokenizerBase | None
) -> _text.TextReader | None:
    """What follows the text for the policy that reads it, where there is one."""
    reading = next((policy for policy in policies if isinstance(policy, ReadsText)), None)
    if reading is None:
        return None
    tokenizer = _text.tokenizer_of(model) if tokenizer is None else tokenizer
    if tokenizer is None:
        why = "it reads the text, and which tokenizer the model has is not known"
        raise UnsupportedError(
            reading.spec, type(model).__name__, why, "apply it with tokenizer=..., or load the model with longreach.load"
        )
    return _text.TextReader(_text.Pieces(tokenizer), lambda state, text: reading.read(state, text, window))


def _full_layer_type(model: PreTrainedModel) -> str | None:
    """The key of the full-attention layers where `rope_parameters` are nested by layer type."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return "full_attention" if "full_attention" in parameters else None


@contextmanager
def _frequencies(model: PreTrainedModel, method: PositionsMethod) -> Iterator[None]:
    """The model's rotary frequencies (and its config, where transformers can express them) are the method's."""
    config = model.config.get_text_config()
    layer_type = _full_layer_type(model)
    rope: Rope = rope_of(config, layer_type, method=method.spec)
    _check_logits_scale(model, method, rope)
    inv_freq, factor = method.inv_freq(rope, rope.trained_window)
    prefix = f"{layer_type}_" if layer_type else ""
    rotaries = [rotary for _, _, rotary in rotary_modules(model) if hasattr(rotary, f"{prefix}inv_freq")]
    if any(getattr(rotary, f"{prefix}inv_freq").shape != inv_freq.shape for rotary in rotaries) or not rotaries:
        why = "it has no rotary embedding of the kind that its config describes"
        raise UnsupportedError(method.spec, type(model).__name__, why, "choose a model with rotary positions")
    with ExitStack() as undo:
        for rotary in rotaries:
            for buffer in (f"{prefix}inv_freq", f"{prefix}original_inv_freq"):
                if hasattr(rotary, buffer):
                    _set(rotary, buffer, inv_freq.to(getattr(rotary, buffer).device), undo)
            _set(rotary, f"{prefix}attention_scaling", factor, undo)
            # What changes with the length (dynamic, longrope) would put its own frequencies in place of these.
            if kinds := getattr(rotary, "rope_type", None):
                _set(rotary, "rope_type", {**kinds, layer_type: "default"} if isinstance(kinds, dict) else "default", undo)
            if tokens := method.unscaled_tokens():
                own = rope.inv_freq().to(getattr(rotary, f"{prefix}inv_freq").device)
                undo.enter_context(unscaled_tokens(rotary, UnscaledEmbedding(tokens, own, rope.attention_factor, prefix)))
        if not all(turns_by(rotary, inv_freq, factor, layer_type, method.unscaled_tokens() + 1) for rotary in rotaries):
            why = "its rotary embedding computes frequencies of its own in every forward pass"
            raise UnsupportedError(method.spec, type(model).__name__, why, "choose an attention or cache method")
        if method.info.exportable:
            _set(config, "rope_parameters", with_rope(config, method), undo)
        yield


def _check_logits_scale(model: PreTrainedModel, method: PositionsMethod, rope: Rope) -> None:
    """Refuse where the scaling of the checkpoint is also in how attention scales its logits (MLA with `mscale_all_dim`)."""
    if rope.scaling is None or not rope.scaling.get("mscale_all_dim"):
        return
    for module in model.modules():
        size: Any = getattr(module, "qk_head_dim", None)
        if size and abs(getattr(module, "scaling", size**-0.5) * size**0.5 - 1) > 1e-6:
            why = "how its rotary embedding is scaled is also in the scale of its logits (mscale_all_dim), where no method reaches"
            raise UnsupportedError(method.spec, type(model).__name__, why, "choose a checkpoint without mscale_all_dim")


def _set(owner: nn.Module | Any, name: str, value: Any, undo: ExitStack) -> None:
    before = getattr(owner, name)
    setattr(owner, name, value)
    undo.callback(setattr, owner, name, before)
