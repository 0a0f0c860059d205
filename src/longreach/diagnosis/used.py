"""What the installed transformers makes of a config: its values, and the rotary modules that it builds from them."""

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from longreach.core.errors import InputError
from longreach.engine.window import trained_window

Kind = Literal["rotary", "linear biases", "learned", "a table", "relative biases", "none", "unknown"]

_TABLES = ("wpe", "embed_positions", "position_embeddings", "position_embedding")
_READS_ON = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_DEFAULT_THETA = 10_000.0


@dataclass(kw_only=True)
class UsedRope:
    """One rotary embedding as it is used. Args: parameters: of the config. inv_freq: [dim / 2] of the module that transformers builds, with
    its factor on cos and sin; None where it cannot be built apart from its model.
    """

    parameters: dict[str, Any]
    inv_freq: Tensor | None = None
    attention_scaling: float = 1.0

    @property
    def rope_type(self) -> str:
        """As transformers calls it."""
        return str(self.parameters.get("rope_type", self.parameters.get("type", "default")))


@dataclass(kw_only=True)
class Used:
    """Args: config: None where transformers cannot load it, and `failure` says why; failure is also set where the model cannot be built.

    causal: it is a language model, which reads on from a cache. kind: how positions enter the model. ropes: layer type (None: all layers)
    -> rotary embedding. window: the config's maximum.
    """

    config: PreTrainedConfig | None = None
    model: nn.Module | None = None
    failure: str | None = None
    causal: bool = False
    kind: Kind = "unknown"
    ropes: dict[str | None, UsedRope] = field(default_factory=dict)
    window: int | None = None

    @property
    def text(self) -> PreTrainedConfig | None:
        """The language model's part of the config."""
        return None if self.config is None else self.config.get_text_config()

    @property
    def layer_types(self) -> tuple[str | None, ...]:
        """Those with a rotary embedding of their own; (None,) where all layers share one."""
        return tuple(self.ropes)

    @property
    def default_theta(self) -> float:
        """The base that this family takes where none is stated."""
        found = getattr(type(self.text), "default_theta", None)
        return float(found) if isinstance(found, int | float) else _DEFAULT_THETA


def read_used(folder: Path, *, trust_remote_code: bool = False) -> Used:
    """Load the config of a folder and build its rotary modules; no weights are read."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # noqa: BLE001 - every family's config raises errors of its own
        return Used(failure=one_line(error))
    used = Used(config=config)
    text = config.get_text_config()
    try:
        used.window = getattr(text, "max_position_embeddings", None) or trained_window(config)
    except InputError:
        used.window = None
    used.causal = _is_causal(config)
    try:
        with torch.device("meta"):
            used.model = (AutoModelForCausalLM if used.causal else AutoModel).from_config(config)
    except Exception as error:  # noqa: BLE001 - an unknown rope type is a KeyError, and families fail in ways of their own
        used.failure = one_line(error)
    used.ropes = _ropes(text)  # now, for building the modules writes into the config
    used.kind = _kind(used, text)
    if used.kind != "rotary" and used.model is not None:
        used.ropes = {}
    elif used.model is not None:
        try:
            _fill(used, text)
        except Exception as error:  # noqa: BLE001 - values of a wrong kind fail only where they are computed with
            used.failure = one_line(error)
    return used


def _ropes(text: PreTrainedConfig) -> dict[str | None, UsedRope]:
    return {key: UsedRope(parameters=found) for key, found in rope_parameters(text).items()}


def rope_parameters(text: PreTrainedConfig) -> dict[str | None, dict[str, Any]]:
    """layer type (None: all layers) -> its `rope_parameters`. What stands beside per-layer dicts is not used by any layer."""
    whole = getattr(text, "rope_parameters", None) or {}
    types = set(getattr(text, "_rope_type_labels", None) or getattr(text, "layer_types", None) or ())
    nested: dict[str | None, dict[str, Any]] = {key: value for key, value in whole.items() if key in types and isinstance(value, dict)}
    return copy.deepcopy(nested or ({None: whole} if whole else {}))


def one_line(error: BaseException) -> str:
    """The first line of an error that says something, with its kind where the text alone would not be understood."""
    cause = error.__cause__ if "validator" in str(error) and error.__cause__ is not None else error
    text = next((line.strip() for line in str(cause).splitlines() if line.strip()), "")
    return f"{type(cause).__name__}: {text}" if isinstance(cause, KeyError | AttributeError | TypeError) else text or type(cause).__name__


def _is_causal(config: PreTrainedConfig) -> bool:
    """Some configs (BERT) serve several kinds of model; then the class that was saved decides."""
    named = config.architectures or _READS_ON
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and any(name.endswith(_READS_ON) for name in named)


def _fill(used: Used, text: PreTrainedConfig) -> None:
    """Build the rotary modules anew where there is memory, and read their frequencies."""
    assert used.model is not None  # noqa: S101 - the caller has built it
    makers = {type(module): module.config for module in used.model.modules() if _is_rotary(module, text)}
    for kind, config in makers.items():
        module: Any = kind(config)
        for name, buffer in module.named_buffers():
            if name.endswith("inv_freq") and "original" not in name:
                prefix = name.removesuffix("inv_freq")
                rope = used.ropes.get(prefix.rstrip("_") or None)
                if rope is not None:
                    rope.inv_freq = buffer.double()
                    rope.attention_scaling = float(getattr(module, f"{prefix}attention_scaling", 1.0))


def _is_rotary(module: nn.Module, text: PreTrainedConfig) -> bool:
    named = any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False))
    return named and isinstance(getattr(module, "config", None), type(text))


def _kind(used: Used, text: PreTrainedConfig) -> Kind:
    if used.model is None:
        return "rotary" if used.ropes else "unknown"
    modules = list(used.model.modules())
    if getattr(text, "alibi", False) or any("alibi" in name for module in modules for name in vars(type(module))):
        return "linear biases"
    if any(name.endswith("inv_freq") for name, _ in used.model.named_buffers()):
        return "rotary"
    if hasattr(text, "relative_attention_num_buckets"):
        return "relative biases"
    tables = [module for name, module in used.model.named_modules() if name.rpartition(".")[2] in _TABLES]
    if any(isinstance(module, nn.Embedding) for module in tables):
        return "learned"
    buffers = [name.rpartition(".")[2] for name, _ in used.model.named_buffers()]
    return "a table" if tables or any(name in _TABLES for name in buffers) else "none"
