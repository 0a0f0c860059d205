"""What methods may know of a layer, with the weights of their own that they have in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.bands import LayerContext
from longreach.engine.aside import stack_of
from longreach.engine.rotation import Attention, refusal

HOLDER = "longreach_weights"  # attribute of an attention module, and part of the weights' names


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """A model whose layers stand for some of a larger one has this as `longreach_stand_in`: where methods are to think that they are.

    Args: chosen: the index of each attention layer in the larger model. full_layers: those of its layers with full attention.
    """

    chosen: tuple[int, ...]
    full_layers: tuple[int, ...]
    num_layers: int


def contexts(model: PreTrainedModel, attentions: Sequence[Attention], trained_window: int) -> list[LayerContext]:
    """What methods may know of each layer. Args: trained_window: of the model without methods."""
    config = model.config.get_text_config()
    full = tuple(index for index, attention in enumerate(attentions) if attention.window is None)
    first = attentions[full[0] if full else 0].module
    stand_in = getattr(model, "longreach_stand_in", None) or StandIn(
        chosen=tuple(range(len(attentions))), full_layers=full, num_layers=len(attentions)
    )
    return [
        LayerContext(
            layer_idx=place, num_layers=stand_in.num_layers, num_heads=attention.num_heads, num_kv_heads=attention.num_kv_heads,
            head_dim=attention.head_dim, hidden_size=config.hidden_size, trained_window=trained_window,
            full_layers=stand_in.full_layers, first=attention.module is first, weights=weights_of(attention.module, first),
            decoder=partial(first_layers, model),
        )
        for place, attention in zip(stand_in.chosen, attentions, strict=True)
    ]  # fmt: skip


def weights_of(module: nn.Module, first: nn.Module) -> dict[str, Tensor]:
    """`method.name` -> weight of an attention module; what it does not have itself is that of the first layer."""
    return {
        f"{method}.{name}": weight
        for each in (first, module)
        if isinstance(holder := getattr(each, HOLDER, None), nn.ModuleDict)
        for method, weights in holder.items()
        for name, weight in weights.named_parameters()
    }


def first_layers(model: PreTrainedModel, layers: int) -> dict[str, Tensor]:
    """The weights of the model's decoder where it is cut off after so many layers, by their names in it; without the tokens' table.

    Raises: UnsupportedError for weights that cannot be trained, as those that are packed into few bits.
    """
    name, stack = stack_of(model)
    table: Any = model.get_input_embeddings()
    gone = tuple(f"{name}.{index}." for index in range(layers, len(stack)))
    found = {
        each: value.detach()
        for each, value in model.base_model.named_parameters()
        if not each.startswith(gone) and f".{HOLDER}." not in each and value is not table.weight
    }
    if packed := [each for each, value in found.items() if not value.is_floating_point()]:
        raise refusal(model, f"a copy of its first layers cannot be trained, for their weights are packed ({packed[0]})")
    return found
