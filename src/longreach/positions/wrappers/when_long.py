"""When long: the scaling before it acts only beyond the trained window, and short texts are read as if there were none.

Paper: YaRN: Efficient Context Window Extension of Large Language Models, 2023, arXiv:2309.00071, section 3.3
Cost: keys are kept unrotated, too, and rotated anew once, when a row passes the window.   Limits: no server can be told of it, and beyond
the window it is what the scaling is; stacked with attention or cache methods, short texts are the model's own but for rounding.
Differs from the paper: its dynamic scaling grows with the length; here a scaling of any kind is on or off. Each token goes by its own
position, so a long text's first window is read as the base model reads it, and prefill in chunks, in one piece and decoding agree.
The window of a checkpoint that is scaled already is the one that it is scaled to.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from longreach.core.method import Claim, MethodInfo
from longreach.positions.base import PositionsMethod, PositionsWrapper, Rope

_NEVER_AGAIN = 1 << 40  # tokens until the frequencies change once more


@dataclass(frozen=True, kw_only=True)
class WhenLong(PositionsWrapper):
    """Takes no settings. Rows of a batch switch one by one; a row inside the window is bit for bit what it is without the method."""

    info: ClassVar = MethodInfo(
        title="YaRN: Efficient Context Window Extension of Large Language Models",
        paper="arXiv:2309.00071",
        length_dependent=True,
        plain_inside=True,
        changes_positions=True,
        claims=(
            Claim(text="a scaling that sets in with the length costs nothing inside the window", metric="inside_difference", at_most=0.0),
        ),
    )

    def wrap(self, inner: PositionsMethod, rope: Rope, seq_len: int) -> tuple[Tensor, float]:
        """theta_i up to the trained window, those of the method inside beyond."""
        if seq_len > rope.trained_window:
            return inner.inv_freq(rope, seq_len)
        own, factor = rope.own(seq_len)
        return own.expand(rope.num_heads, -1) if inner.info.per_head else own, factor

    def length_step(self, rope: Rope) -> int:
        """One change, at the window."""
        return _NEVER_AGAIN


METHOD = WhenLong
EXAMPLES = (WhenLong(),)
STACKS = ("yarn:factor=4+when_long", "linear:factor=4+resonance+when_long")
NEUTRAL = (WhenLong(),)
BAD = ()
