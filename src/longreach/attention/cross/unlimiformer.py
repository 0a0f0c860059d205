"""Unlimiformer: an encoder reads a text of any length in overlapping pieces, and each decoder head attends to its nearest keys of all.

Paper: Unlimiformer: Long-Range Transformers with Unlimited Length Input, 2023, arXiv:2305.01625
Cost: the encoder reads each token about twice. A token that is written costs a product of each head's query with every state of the text,
hidden_size / head_dim times what plain cross-attention costs; of the text only these states are kept, once for all layers and heads.
Limits: for encoder-decoders (BART, T5 and their kin); what is written ends where the decoder's positions do. A piece knows nothing of what
stands outside of it, and the decoder not where a piece stood.
Differs from the paper: keys are found exactly, by products with all states, and not by an approximate index; texts of a padded batch are
cut by their own length; the first token that is written is retrieved for, too, where the authors' code has it see the first window alone.
Models are used as they are: the paper's ways to train with retrieval are not here.

Keys and values are linear in the encoder's states, so a query times the key projection searches the states themselves.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.attention.base import CrossRetrieval
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least, format_value


@dataclass(frozen=True, kw_only=True)
class Unlimiformer(CrossRetrieval):
    """Args: budget: keys that a query of a head sees (>= 1; default: the window). overlap: of a piece with others (0 <= overlap < 1).

    window_size: tokens of a piece (>= 1; default: the encoder's window). Of a piece half the overlap is left out at either end.
    """

    info: ClassVar = MethodInfo(
        title="Unlimiformer: Long-Range Transformers with Unlimited Length Input",
        paper="arXiv:2305.01625",
        plain_inside=True,
        claims=(Claim(text="improves BART on inputs that it would have to cut off", metric="found_gain_8x", at_least=0.0),),
    )
    budget: int | None = None
    overlap: float = 0.5
    window_size: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "budget", "window_size")
        if not 0 <= self.overlap < 1:
            raise SpecError(f"{self.name()}: overlap={format_value(self.overlap)} must be at least 0 and below 1")

    def stated_window(self) -> int | None:
        """Of the settings."""
        return self.window_size

    def keys_seen(self, window: int) -> int:
        """The budget."""
        return self.budget or window

    def pieces(self, length: int, window: int) -> tuple[tuple[int, int, int, int], ...]:
        """Windows, each kept without its margins; the first keeps its begin, and the last, which ends with the text, all that is left."""
        margin = int(window * self.overlap / 2)
        stride, found, kept = window - 2 * margin, [], 0
        for begin in range(0, length - window, stride):
            end = begin + window - margin
            found.append((begin, begin + window, kept, end))
            kept = end
        return (*found, (length - window, length, kept, length))


METHOD = Unlimiformer
EXAMPLES = (Unlimiformer(), Unlimiformer(budget=7, overlap=0.25), Unlimiformer(overlap=0, window_size=12), Unlimiformer(budget=200))
NEUTRAL = (Unlimiformer(window_size=64),)
BAD = ({"budget": 0}, {"overlap": 1}, {"window_size": 0})
