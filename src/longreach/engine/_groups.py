"""A cache layer whose key-value heads keep different things: one layer for each group of heads, which go together."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor

from longreach.engine._channels import Change
from longreach.engine._store import BandLayer, Held, LayerPlan
from longreach.engine._stream import Stream

_NOTHING = LayerPlan(num_sinks=0, window=0, maps=(), sink_maps=())


class GroupedLayer(BandLayer):
    """Args: parts: the heads of each group, and their layer."""

    def __init__(self, stream: Stream, leads: bool, parts: Mapping[tuple[int, ...], BandLayer]) -> None:
        super().__init__(_NOTHING, stream, leads)
        self.heads = [list(heads) for heads in parts]
        self.parts = dict(enumerate(parts.values()))

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Take the new, unrotated keys and values [B, K, T, D]."""
        super().update(key_states, value_states)
        self.batch = key_states.shape[0]
        for heads, part in zip(self.heads, self.parts.values(), strict=True):
            part.update(key_states[:, heads], value_states[:, heads])
        return key_states, value_states

    def settle(self) -> None:
        """Forget what no later query can reach; nothing can be taken back after that."""
        for part in self.parts.values():
            part.settle()

    def turn_again(self) -> None:
        """Some kept keys were changed."""
        for part in self.parts.values():
            part.turn_again()

    def held(self) -> Held:
        """What the layer holds now."""
        return replace(super().held(), parts=tuple(part.held() for part in self.parts.values()))

    def hold(self, held: Held) -> None:
        """Hold this instead of what the layer holds."""
        super().hold(held)
        for part, each in zip(self.parts.values(), held.parts, strict=True):
            part.hold(each)

    def reset(self) -> None:
        """Empty the layer."""
        for part in self.parts.values():
            part.reset()
        super().reset()

    def check_crop(self, count: int) -> None:
        """Raise LongreachError where some heads cannot take back the last `count` tokens."""
        for part in self.parts.values():
            part.check_crop(count)

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        self.tokens -= count
        for part in self.parts.values():
            part.take_back(count)

    def _change(self, change: Change) -> None:
        for part in self.parts.values():
            part._change(change)
        super()._change(change)


def maps_of(layer: BandLayer) -> tuple[object, ...]:
    """What channels of a layer may be called by, beside names."""
    layers: Iterable[BandLayer] = layer.parts.values() if isinstance(layer, GroupedLayer) else (layer,)
    return tuple(position for each in layers for position in (*each.plan.maps, *each.plan.sink_maps))
