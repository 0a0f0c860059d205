"""Weights of methods' own: parameters of the attention layers, so that they are trained, moved, saved and copied with the model."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.bands import LayerContext
from longreach.core.errors import CheckpointError, UnsupportedError
from longreach.core.method import Method
from longreach.core.spec import stack_of
from longreach.engine.contexts import HOLDER, contexts
from longreach.engine.examine import examine
from longreach.engine.window import trained_window

OWN_WEIGHTS = "longreach.safetensors"  # beside a checkpoint's weights


def needs_weights(stack: Iterable[Method]) -> list[Method]:
    """The methods of a stack that have weights of their own."""
    return [method for method in stack if type(method).weights is not Method.weights]


def equip(model: PreTrainedModel, methods: str | Method | Iterable[Method]) -> PreTrainedModel:
    """Give the model the weights that methods need of their own, as they are before training; what it has of them stays.

    Then the methods can be applied to it, trained with it, and saved with it.
    Args: methods: a spec, a method, or several.
    Returns: the model.
    Raises: UnsupportedError for a model that the engine cannot run.
    """
    stack = stack_of(methods)
    if not (own := needs_weights(stack)):
        return model
    trained = trained_window(model.config.get_text_config())
    attentions = examine(model, trained)
    table: Any = model.get_input_embeddings()
    for attention, bare in zip(attentions, contexts(model, attentions, trained), strict=True):
        context = replace(bare, embeddings=table.weight)
        for method in own:
            if attention.window is None and (made := method.weights(context)):
                holder = getattr(attention.module, HOLDER, None)
                if not isinstance(holder, nn.ModuleDict):
                    attention.module.add_module(HOLDER, holder := nn.ModuleDict())
                if method.name() not in holder:
                    like: dict[str, Any] = {"dtype": model.dtype, "device": model.device, "copy": True}
                    holder[method.name()] = nn.ParameterDict({name: nn.Parameter(value.to(**like)) for name, value in made.items()})
    return model


def check_weights(stack: Iterable[Method], model: PreTrainedModel, layers: Iterable[LayerContext]) -> None:
    """Raise UnsupportedError for a method whose weights the layers lack."""
    own = needs_weights(stack)
    for layer in layers:
        for method in own:
            if missing := [name for name in method.weights(layer) if f"{method.name()}.{name}" not in layer.weights]:
                why = f"it has no weights for it ({', '.join(missing)})"
                instead = "give it some (longreach.equip) and train them, which longreach tune does at once"
                raise UnsupportedError(method.spec, type(model).__name__, why, instead)


def own_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The parameters that methods have in the model, by their names in it."""
    return {name: value for name, value in model.named_parameters() if f".{HOLDER}." in name}


def load_weights(model: PreTrainedModel, file: Path, method: str | None) -> None:
    """Give the model the methods' weights that a checkpoint was saved with, whichever method it is for.

    Raises: CheckpointError where `file` lacks some that `method` needs, or holds some that the model has no place for.
    """
    stored = load_file(file) if file.is_file() else {}
    for name, value in stored.items():
        path, _, rest = name.partition(f".{HOLDER}.")
        of, _, weight = rest.partition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise CheckpointError(f"{file} holds {name}, which this model has no place for") from None
        if not isinstance(getattr(module, HOLDER, None), nn.ModuleDict):
            module.add_module(HOLDER, nn.ModuleDict())
        holder: Any = getattr(module, HOLDER)
        if of not in holder:
            holder[of] = nn.ParameterDict()
        holder[of][weight] = nn.Parameter(value.to(dtype=model.dtype, device=model.device))
    if missing := own_weights(equip(model, method or ())).keys() - stored.keys():
        raise CheckpointError(f"{file} lacks {len(missing)} of the methods' weights (the first: {min(missing)}); it is not whole")
