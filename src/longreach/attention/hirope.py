"""HiRoPE: near keys at true positions; far keys of source code at two: their place in a function, and the function's number.

Paper: HiRoPE: Length Extrapolation for Code Models Using Hierarchical Position, 2024, arXiv:2403.19115
Cost: two attention bands a layer and a second rotated copy of the keys; no training. The text of every token is read.
Limits: for source code; as far as neither a function nor their number is longer than the trained window. Prose is cut into pieces of
`longest` tokens.
Differs from the paper: blocks are found line by line and not in a syntax tree, which needs the whole text: keys are rotated once, when
they are read, and what is read or written later must not move them. A block so begins with the token after its `def` or `class`, lines
after a function belong to it until the next one begins, and a header in a string counts. The paper sets the window to 512 tokens, for
models trained on 2048 and more; here it is half the trained window.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention._blocks import START, SYNTAXES
from longreach.attention.base import AttentionPolicy
from longreach.core.bands import Band, LayerContext, split_by_blocks
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least, format_value


@dataclass(frozen=True, kw_only=True)
class HiRope(AttentionPolicy):
    """Args: window_size: nearest keys with true positions, the query's own included (tokens, >= 1; default: half the trained window).

    split: share of the pairs of dimensions, the fastest, that turn with a token's place in its block, and not with the block's number (0 to
    1). blocks: python (functions and classes begin with def and class) or braces (they end with a closing brace). longest: tokens after
    which a block ends in any case (>= 1; default: the trained window).
    """

    info: ClassVar = MethodInfo(
        title="HiRoPE: Length Extrapolation for Code Models Using Hierarchical Position",
        paper="arXiv:2403.19115",
        changes_positions=True,
        reads_text=True,
        claims=(Claim(text="untuned, perplexity on long source code stays low beyond the window", metric="code_rise_share", at_most=0.5),),
    )
    window_size: int | None = None
    split: float = 0.5
    blocks: str = "python"
    longest: int | None = None

    def __post_init__(self) -> None:
        at_least(self, 1, "window_size", "longest")
        if not 0 <= self.split <= 1:
            raise SpecError(f"hirope: split={format_value(self.split)} must be from 0 to 1")
        if self.blocks not in SYNTAXES:
            raise SpecError(f"hirope: blocks={self.blocks} must be {' or '.join(SYNTAXES)}")

    def bands(self, layer: LayerContext) -> tuple[Band, ...]:
        """Near: i - j. Far: differences of places in blocks in fast dimensions, of the blocks' numbers in slow ones."""
        near, position = self._near(layer.trained_window), split_by_blocks(self.split)
        return Band(hi=near - 1), Band(queries=position, keys=position, lo=near)

    def read(self, state: tuple[int, ...] | None, text: str, trained_window: int) -> tuple[int, ...]:
        """(block, place, whether the next token begins a block, and where in its line the text ends)."""
        block, place, due, *line = state or (0, -1, 0, *START)
        place += 1
        if due or place == (self.longest or trained_window):
            block, place = block + 1, 0
        after, due = SYNTAXES[self.blocks]((line[0], line[1]), text)
        return (block, place, int(due), *after)

    def _near(self, trained_window: int) -> int:
        return self.window_size or max(1, trained_window // 2)

    def reference_by_text(self, i: Tensor, j: Tensor, texts: Sequence[str], pairs: int, trained_window: int) -> tuple[Tensor, Tensor]:
        """Every token's block and place, found in the whole text before it."""
        starts = [0]
        for token in range(1, len(texts)):
            before, last = "".join(texts[:token]), "".join(texts[: token - 1])
            if _ENDS[self.blocks](before) > _ENDS[self.blocks](last) or token - starts[-1] == (self.longest or trained_window):
                starts.append(token)
        at = torch.arange(len(texts))
        block = (at[:, None] >= torch.tensor(starts)).sum(1) - 1
        place = at - torch.tensor(starts)[block]
        both = torch.where((torch.arange(pairs) < round(self.split * pairs)), place[:, None], block[:, None])
        far = both[i.clamp(min=0)[:, 0], None] - both[j.clamp(min=0)[0]]
        return torch.where((i - j < self._near(trained_window))[..., None], (i - j)[..., None], far), j <= i


def _headers(text: str) -> int:
    """Lines of a text that begin a function or class in Python."""
    return sum(bool(re.match(r"[ \t]*(async[ \t]+)?(def|class)[ \t]", line)) for line in re.split(r"[\r\n]", text))


def _closed(text: str) -> int:
    """Lines of a text that begin with the brace that closes a function or class."""
    depth, found = 0, 0
    for line in re.split(r"[\r\n]", text):
        code = re.sub(r'"(?:\\.|[^"\\])*("|\\?$)', "", line).strip(" \t")
        for place, brace in enumerate(code):
            if brace in "{}":
                depth = max(0, depth + (1 if brace == "{" else -1))
            if brace == "}" and not place:
                depth = 0 if line.startswith("}") else depth
                found += depth <= 1
    return found


_ENDS = {"python": _headers, "braces": _closed}


METHOD = HiRope
EXAMPLES = (
    HiRope(window_size=16),
    HiRope(window_size=8, split=0.25, longest=5),
    HiRope(window_size=10, blocks="braces"),
)
NEUTRAL = (HiRope(window_size=64),)
BAD = ({"window_size": 0}, {"split": 1.5}, {"split": float("nan")}, {"longest": 0}, {"blocks": "cobol"})
