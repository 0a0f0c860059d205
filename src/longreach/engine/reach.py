"""How far a stack of methods reads, of a model with a given trained window."""

from collections.abc import Iterable
from functools import cache

import torch

from longreach.attention.base import AttentionPolicy, Chunks, FollowsLength, Packs, ReadsSets, ReadsText
from longreach.cache.base import CachePolicy
from longreach.core.bands import PROBE
from longreach.core.method import Method
from longreach.positions.base import PositionsMethod, positions_of

_ENDLESS = 1 << 20  # tokens: what reaches so far is taken to have no end
_EACH = 1 << 12  # keys that are looked at: the first, the last, and as many between


def reach_of(stack: Iterable[Method], trained_window: int) -> int | None:
    """The longest text of which no query sees a key farther away than training showed; None: there is no end to it, or none is known.

    Attention and cache policies are asked by their definition, positions methods by how far they stretch the window.
    """
    return _reach(tuple(method for method in stack if not isinstance(method, Packs | ReadsSets | Chunks)), trained_window)


@cache
def _reach(stack: tuple[Method, ...], trained_window: int) -> int | None:
    if not all(isinstance(method, PositionsMethod | AttentionPolicy | CachePolicy) for method in stack):
        return None  # tables of positions, whose end the model itself states, and encoders
    positions = positions_of(stack)
    window = trained_window if positions is None else positions.reach(trained_window)
    if window is None:
        return None
    seeing = [method for method in stack if isinstance(method, AttentionPolicy | CachePolicy) and method.views(PROBE) is not None]
    if not seeing:
        return window
    policy = seeing[0]
    if isinstance(policy, FollowsLength | ReadsText):
        return None

    def inside(length: int) -> bool:
        """Whether the last query of a text of that length sees nothing too far away."""
        ends = torch.arange(min(length, _EACH))  # what changes with the distance changes near an end, or steadily
        j = torch.cat([ends, length - 1 - ends, torch.linspace(0, length - 1, _EACH).long()])
        relative, visible = policy.reference(torch.tensor(length - 1), j)
        seen = relative.expand(len(j))[visible.expand(len(j))]
        return bool((seen < window).all())

    if inside(_ENDLESS):
        return None
    low, high = 1, _ENDLESS  # inside(low) holds, inside(high) does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if inside(middle) else (low, middle)
    return low
