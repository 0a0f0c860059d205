"""What the engine is told to run: the policies of a stack, and frequencies that it has to apply itself."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from longreach.attention.base import AttentionPolicy, FollowsLength, Scales
from longreach.cache.base import CachePolicy
from longreach.cache.trained.base import Inserts
from longreach.core.bands import FULL, PROBE, LayerContext
from longreach.core.memory import View
from longreach.engine._text import TextReader


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """Rotary frequencies that depend on the text's length, or on the head.

    Args: lengths: the length that those at the index t are for, [B | 1, T], and whether the text is known to be longer than a checkpoint's
    frequencies for short texts are for -> same shape. inv_freq: that length -> frequencies [R/2 or K,
    R/2] and factor. fixed: there is but one length. mixture: of their cos and sin (positions/base.py).
    """

    lengths: Callable[[Tensor, bool], Tensor]
    inv_freq: Callable[[int], tuple[Tensor, float]]
    fixed: bool = False
    mixture: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the engine runs in layers with full attention.

    Args: policies: of a stack; at most one of them decides what a query sees. frequencies: None leaves them to the model. plain_inside:
    tokens up to which a row is left to the model's own attention function, for full bands only. text: finds the blocks of the text.
    """

    policies: Sequence[AttentionPolicy | CachePolicy] = ()
    frequencies: Frequencies | None = None
    plain_inside: int | None = None
    text: TextReader | None = None

    @property
    def seeing(self) -> list[AttentionPolicy | CachePolicy]:
        """The policies that decide what a query sees."""
        return [policy for policy in self.policies if policy.views(PROBE) is not None]

    @property
    def attention(self) -> tuple[AttentionPolicy, ...]:
        """The attention policies."""
        return tuple(policy for policy in self.policies if isinstance(policy, AttentionPolicy))

    @property
    def keep_all(self) -> bool:
        """Whether nothing may be forgotten."""
        return any(policy.keep_all for policy in self.policies if isinstance(policy, CachePolicy))

    @property
    def inserting(self) -> Inserts | None:
        """The policy that puts tokens of its own into the text."""
        return next((policy for policy in self.policies if isinstance(policy, Inserts)), None)

    @property
    def scaled(self) -> bool:
        """Whether logits are multiplied by a factor."""
        return any(isinstance(policy, Scales) for policy in self.policies)

    @property
    def following(self) -> FollowsLength | None:
        """The policy whose bands change with the text's length."""
        return next((policy for policy in self.policies if isinstance(policy, FollowsLength)), None)

    def views(self, layer: LayerContext) -> tuple[View, ...]:
        """What a query of the layer sees."""
        return next((views for policy in self.policies if (views := policy.views(layer)) is not None), FULL)

    def temperature(self, t: Tensor, layer: LayerContext) -> Tensor | None:
        """Factor on the logits of queries that `t` [B, T] tokens come before: [B, T], or [B, H, T]; None: 1."""
        factors = [policy.temperature(t, layer) for policy in self.policies if isinstance(policy, Scales)]
        if not factors:
            return None
        by_head = any(factor.ndim == 3 for factor in factors)
        return math.prod(factor[:, None] if by_head and factor.ndim == 2 else factor for factor in factors)  # type: ignore[return-value]
