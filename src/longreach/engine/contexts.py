"""What methods may know of a layer, with the weights of their own that they have in it."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from longreach.core.bands import LayerContext
from longreach.engine.rotation import Attention

HOLDER = "longreach_weights"  # attribute of an attention module, and part of the weights' names


def contexts(model: PreTrainedModel, attentions: Sequence[Attention], trained_window: int) -> list[LayerContext]:
    """What methods may know of each layer. Args: trained_window: of the model without methods."""
    config = model.config.get_text_config()
    full = tuple(index for index, attention in enumerate(attentions) if attention.window is None)
    first = attentions[full[0] if full else 0].module
    return [
        LayerContext(
            layer_idx=index, num_layers=len(attentions), num_heads=attention.num_heads, num_kv_heads=attention.num_kv_heads,
            head_dim=attention.head_dim, hidden_size=config.hidden_size, trained_window=trained_window,
            full_layers=full, first=attention.module is first, weights=weights_of(attention.module, first),
        )
        for index, attention in enumerate(attentions)
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
