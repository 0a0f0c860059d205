"""One set of frequencies for one text: some checkpoints (LongRoPE's) have two, and transformers chooses by what a forward pass reads.

Read in chunks, a long text would have its first keys in the cache under the frequencies for short texts, and the rest under the others.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from longreach.engine.rotation import rotary_modules

_CHOOSES = "longrope"  # transformers' rope type
_PINNED = "_longreach_pinned"


@contextmanager
def whole_length(model: PreTrainedModel, tokens: float) -> Iterator[None]:
    """Inside, frequencies that hang on the text's length are those for a text of `tokens` tokens, however few are read at once.

    The outermost call decides.
    """
    with ExitStack() as undo:
        for _, _, rotary in rotary_modules(model) if _choosing(model) else ():
            kinds: Any = getattr(rotary, "rope_type", None)
            for layer_type, kind in kinds.items() if isinstance(kinds, dict) else [(None, kinds)]:
                if kind == _CHOOSES and f"{layer_type}{_PINNED}" not in vars(rotary):
                    _pin(rotary, layer_type, tokens, undo)
        yield


def frequencies_for(model: PreTrainedModel, tokens: float) -> tuple[bool, ...]:
    """Which frequencies a text of so many tokens is read under: alike for lengths that share them; () where they hang on none."""
    return tuple(tokens > parameters["original_max_position_embeddings"] for parameters in _choosing(model))


def read_as_long(rotaries: Iterable[nn.Module]) -> bool:
    """Whether the text that is being read is known to be longer than the frequencies for short texts are for."""
    return any(value for rotary in rotaries for name, value in vars(rotary).items() if name.endswith(_PINNED))


def _choosing(model: PreTrainedModel) -> list[dict[str, Any]]:
    """The `rope_parameters` that have two sets of frequencies: the model's, or those of some layer types."""
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    return [each for each in (parameters, *parameters.values()) if isinstance(each, dict) and _CHOOSES in each.values()]


def _pin(rotary: Any, layer_type: str | None, tokens: float, undo: ExitStack) -> None:
    prefix = f"{layer_type}_" if layer_type else ""
    parameters = rotary.config.rope_parameters
    window = (parameters[layer_type] if layer_type else parameters)["original_max_position_embeddings"]
    device = getattr(rotary, f"{prefix}inv_freq").device
    chosen, _ = ROPE_INIT_FUNCTIONS[_CHOOSES](rotary.config, device, seq_len=window + (tokens > window), layer_type=layer_type)
    pinned = {f"{prefix}original_inv_freq": chosen, f"{prefix}long_inv_freq": chosen, f"{layer_type}{_PINNED}": tokens > window}
    for name, value in pinned.items():
        undo.callback(_restore, rotary, name, getattr(rotary, name, None))
        setattr(rotary, name, value)


def _restore(rotary: nn.Module, name: str, before: Any) -> None:
    if before is None:
        delattr(rotary, name)
    else:
        setattr(rotary, name, before)
