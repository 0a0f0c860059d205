"""Applies methods to a loaded model, and undoes it completely."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.attention.base import AttentionPolicy
from longreach.cache.base import CachePolicy
from longreach.core.bands import FULL, Band, LayerContext
from longreach.core.errors import UnsupportedError
from longreach.core.method import Method
from longreach.core.spec import parse, unparse
from longreach.models import engine
from longreach.models.examine import examine
from longreach.models.rope_config import rope_of, with_rope
from longreach.models.rotation import Attention, rotary_modules
from longreach.models.window import trained_window
from longreach.positions.base import PositionsMethod, Rope

_APPLIED = "_longreach_applied"


def applied(model: PreTrainedModel) -> str:
    """The spec of what is applied to the model; "" where nothing is."""
    return str(model.__dict__.get(_APPLIED, ""))


@contextmanager
def apply(model: PreTrainedModel, methods: str | Method | Sequence[Method] | None) -> Iterator[PreTrainedModel]:
    """Inside the context, `model` works under `methods`: a spec (`self_extend:neighbours=128,group=8+log_n`), or methods.

    An empty spec or None changes nothing. One positions method, one attention policy and one cache policy can stand together, with any
    number of policies that only scale logits.
    Raises: SpecError; UnsupportedError for a model or a pair that cannot work.
    """
    stack = _methods(methods)
    with _applied(_unwrapped(model), stack) if stack else nullcontext():
        yield model


@contextmanager
def _applied(model: PreTrainedModel, stack: Sequence[Method]) -> Iterator[None]:
    name = unparse(stack)
    if inside := applied(model):
        raise UnsupportedError(name, type(model).__name__, f"{inside} is applied to it", "leave that first, or stack methods with +")
    with ExitStack() as undo:
        model.__dict__[_APPLIED] = name
        undo.callback(model.__dict__.pop, _APPLIED, None)
        positions = _only(name, [method for method in stack if isinstance(method, PositionsMethod)], "positions methods")
        if positions is not None and not positions.info.length_dependent:
            _check_full_layers(name, model, positions)
            undo.enter_context(_frequencies(model, positions))
        policies = [method for method in stack if isinstance(method, AttentionPolicy | CachePolicy)]
        if policies or (positions is not None and positions.info.length_dependent):
            window = trained_window(model.config.get_text_config())
            attentions = _examined(name, model, window)
            setup = _setup(name, model, policies, positions)
            _check_effect(name, model, stack, attentions)
            undo.enter_context(engine.installed(model, attentions, setup, window))
        yield


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


def _unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """The transformers model in a PEFT wrapper: the wrapper's `generate` goes past the wrapper."""
    inner: PreTrainedModel = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return inner


def _examined(name: str, model: PreTrainedModel, window: int) -> list[Attention]:
    try:
        return examine(model, window)
    except UnsupportedError as error:  # say it of what the user asked for
        raise UnsupportedError(name, error.model, error.why, error.try_instead) from None


def _methods(methods: str | Method | Sequence[Method] | None) -> tuple[Method, ...]:
    if not methods:
        return ()
    if isinstance(methods, str):
        return parse(methods)
    return (methods,) if isinstance(methods, Method) else tuple(methods)


def _only(name: str, found: list[Any], what: str) -> Any:
    if len(found) > 1:
        raise UnsupportedError(found[1].spec, found[0].spec, f"{name} has two {what}", "keep one of them")
    return found[0] if found else None


def _setup(
    name: str, model: PreTrainedModel, policies: Sequence[AttentionPolicy | CachePolicy], positions: PositionsMethod | None
) -> engine.Setup:
    probe = LayerContext(layer_idx=0, num_layers=1, num_heads=1, num_kv_heads=1, head_dim=2, trained_window=2)
    seeing = _only(name, [policy for policy in policies if policy.bands(probe) is not None], "methods that decide what a query sees")
    _only(name, [policy for policy in policies if isinstance(policy, CachePolicy)], "cache policies")
    scalers = [policy for policy in policies if isinstance(policy, AttentionPolicy)]

    def bands(layer: LayerContext) -> tuple[Band, ...]:
        return (seeing.bands(layer) if seeing is not None else None) or FULL

    def temperature(t: Tensor, layer: LayerContext) -> Tensor | None:
        factors = [factor for policy in scalers if (factor := policy.temperature(t, layer)) is not None]
        return torch.stack(factors).prod(0) if factors else None

    keep_all = any(policy.keep_all for policy in policies if isinstance(policy, CachePolicy))
    if positions is None or not positions.info.length_dependent:
        return engine.Setup(bands=bands, temperature=temperature, keep_all=keep_all)
    rope = rope_of(model.config.get_text_config(), _full_layer_type(model), method=positions.spec)
    step, window = positions.length_step(rope) or 1, rope.trained_window

    def lengths(t: Tensor) -> Tensor:
        return torch.where(t < window, window, (t // step + 1) * step)  # inside the window the length is not rounded up

    return engine.Setup(
        bands=bands, temperature=temperature, keep_all=keep_all, lengths=lengths, inv_freq=lambda length: positions.inv_freq(rope, length)
    )


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
        if method.info.exportable:
            _set(config, "rope_parameters", with_rope(config, method), undo)
        yield


def _set(owner: nn.Module | Any, name: str, value: Any, undo: ExitStack) -> None:
    before = getattr(owner, name)
    setattr(owner, name, value)
    undo.callback(setattr, owner, name, before)
