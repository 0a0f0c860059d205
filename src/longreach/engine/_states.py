"""Cache layers of models whose layers have a state beside their attention (FalconH1), or in its place (mamba, convolutions)."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import LinearAttentionCacheLayerMixin, LinearAttentionLayer

from longreach.engine._channels import Change
from longreach.engine._store import AnyStore, BandLayer, LayerPlan
from longreach.engine._stream import Stream


def has_state(layer: Any) -> bool:
    """Whether a cache layer has a state."""
    return isinstance(layer, LinearAttentionCacheLayerMixin)


class StateAndBandLayer(LinearAttentionLayer, BandLayer):
    """A layer of the engine that keeps the state which its model has beside attention, as transformers keeps it.

    Args: beside: the layer of transformers in whose place it stands.
    """

    is_compileable = False

    def __init__(self, beside: LinearAttentionLayer, plan: LayerPlan, stream: Stream, leads: bool, store: AnyStore | None = None) -> None:
        BandLayer.__init__(self, plan, stream, leads, store)
        LinearAttentionLayer.__init__(self, number_of_states=beside.number_of_states)

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]
        """States cannot go back."""
        return False

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Of keys and values, by position, or of states, by name."""
        (BandLayer if args else LinearAttentionLayer).lazy_initialization(self, *args, **kwargs)

    def reset(self) -> None:
        """Empty the layer."""
        LinearAttentionLayer.reset(self)
        BandLayer.reset(self)

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens, as far as transformers can take back a state."""
        LinearAttentionLayer.crop(self, tokens_to_remove)
        BandLayer.crop(self, tokens_to_remove)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows of the batch follow their beams."""
        BandLayer.reorder_cache(self, beam_idx)

    def _change(self, change: Change) -> None:
        for states in (self.conv_states, self.recurrent_states):
            states.update({index: change(state) for index, state in states.items() if state is not None})
        BandLayer._change(self, change)

    def get_max_length(self) -> int:
        """No maximum."""
        return -1
