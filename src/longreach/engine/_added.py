"""What attention policies add to the logits of a layer: biases by distance, ages of keys, and what is seen besides the text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from longreach.attention.base import Ages, AttentionPolicy, Biases, Fades, Prefixes
from longreach.core.bands import Band, LayerContext

_LEAST_MASS = 1e-30  # of a prefix: below it, it weighs nothing, and dividing by it would give no number


@dataclass(frozen=True)
class Added:
    """The policies of a stack that add something, and the layer that they add it to."""

    context: LayerContext
    biases: tuple[Biases, ...]
    agings: tuple[Ages, ...]
    prefixes: tuple[Prefixes, ...]
    decays: tuple[Fades, ...]

    @classmethod
    def of(cls, policies: Sequence[AttentionPolicy], context: LayerContext) -> "Added":
        """Those of a stack."""
        return cls(
            context,
            biases=tuple(policy for policy in policies if isinstance(policy, Biases)),
            agings=tuple(policy for policy in policies if isinstance(policy, Ages)),
            prefixes=tuple(policy for policy in policies if isinstance(policy, Prefixes)),
            decays=tuple(policy for policy in policies if isinstance(policy, Fades)),
        )

    @property
    def biased(self) -> bool:
        """Whether logits get a bias, so that attention has to be computed in tiles, each with its own."""
        return bool(self.biases or self.agings)

    def ages(self, hidden: Tensor) -> Tensor:
        """[B, H, T, 1]: by how much the new tokens, up to each of them, age what comes before all of them."""
        steps = [policy.aging(hidden, self.context) for policy in self.agings]
        # Ages grow with the text and only differences count: in float32 those of near keys would blur.
        exact = torch.float32 if hidden.device.type == "mps" else torch.float64
        return torch.stack(steps).sum(0).to(exact).cumsum(-1)[..., None]

    def bias(self, band: Band, queries: Tensor, keys: Tensor, ages: tuple[Tensor, Tensor] | None) -> Tensor:
        """[B | 1, H, T, S] float32 for queries and keys at the indices [B | 1, T] and [B | 1, S]; ages: theirs, [B, H, n, 1] each."""
        distance = (band.queries(queries)[:, :, None] - band.keys(keys)[:, None]).clamp(min=0)
        total = distance.new_zeros((1, 1, 1, 1), dtype=torch.float32)
        for policy in self.biases:
            total = total + self._by_distance(policy, distance)
        if ages is not None:
            total = total - (ages[0] - ages[1].mT).float()
        return total

    def _by_distance(self, policy: Biases, distance: Tensor) -> Tensor:
        """The bias [B | 1, H, T, S] of one policy; whole distances, of which there are few, are looked up."""
        if distance.is_floating_point():
            return policy.bias(distance, self.context).transpose(0, 1)
        least = int(distance.min())
        table = policy.bias(torch.arange(least, int(distance.max()) + 1, device=distance.device), self.context)
        return table[:, distance - least].transpose(0, 1)

    def prefix(self, q: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(output [B, H, T, D], log-sum-exp [B, H, T]) of what queries q [B, H, T, D] see besides the text."""
        seen = [policy.prefix(q, self.context) for policy in self.prefixes]
        masses = [mass.clamp(min=_LEAST_MASS) for _, mass in seen]
        return [((total / mass[..., None]).to(q.dtype), mass.log()) for (total, _), mass in zip(seen, masses, strict=True)]
