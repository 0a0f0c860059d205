"""HiRoPE: near keys at true distances; far ones at two, of their places in functions of source code and of the functions' numbers.

Paper: HiRoPE: Length Extrapolation for Code Models Using Hierarchical Position, 2024, arXiv:2403.19115
Cost: two attention bands a layer and a second rotated copy of the keys; no training. The text of every token is read.
Limits: for source code, prose is cut into pieces of `longest` tokens; reaches as many blocks as the trained window has tokens beyond
window_size.
Differs from the paper: blocks are found line by line and not in a syntax tree, which needs the whole text: keys are rotated once, when
they are read, and what is read or written later must not move them. So a block begins with the token after its `def` or `class`, lines
after a function belong to it until the next one begins, and a header in a string counts. Both far distances begin at the window, as in
Self-Extend: without, far keys in places close by pass for near ones. Blocks are cut where their places would leave the trained window.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from longreach.attention.base import ReadsText
from longreach.attention.placement._blocks import START, SYNTAXES
from longreach.core.bands import Band, ByBlocks, LayerContext
from longreach.core.errors import SpecError
from longreach.core.method import Claim, MethodInfo, at_least, format_value


@dataclass(frozen=True, kw_only=True)
class HiRope(ReadsText):
    """Args: window_size: nearest keys with true positions, the query's own included (tokens, >= 1; default: half the trained window).

    split: share of the pairs of dimensions, the fastest, that turn with a token's place in its block, and not with the block's number (0 to
    1). blocks: python (functions and classes begin with def and class) or braces (they end with a closing brace). longest: tokens after
    which a block ends in any case (>= 1; default: as window_size, or what the trained window has beyond it).
    """

    info: ClassVar = MethodInfo(
        title="HiRoPE: Length Extrapolation for Code Models Using Hierarchical Position",
        paper="arXiv:2403.19115",
        changes_positions=True,
        reads_text=True,
        claims=(Claim(text="perplexity on long source code stays low beyond the window", metric="code_rise_share", at_most=0.5),),
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
        """Near: i - j. Far: window + place of i - place of j in fast dimensions, window + block of i - block of j in slow ones."""
        near, _ = self._sizes(layer.trained_window)
        return Band(hi=near - 1), Band(queries=ByBlocks(self.split, near), keys=ByBlocks(self.split), lo=near)

    def read(self, state: tuple[int, ...] | None, text: str, trained_window: int) -> tuple[int, ...]:
        """(block, place, whether the next token begins a block, and where in its line the text ends)."""
        block, place, due, *line = state or (0, -1, 0, *START)
        place += 1
        if due or place == self._sizes(trained_window)[1]:
            block, place = block + 1, 0
        after, due = SYNTAXES[self.blocks]((line[0], line[1]), text)
        return (block, place, int(due), *after)

    def _sizes(self, trained_window: int) -> tuple[int, int]:
        """Of the window and of the longest block."""
        near = self.window_size or max(1, trained_window // 2)
        return near, self.longest or max(1, min(near, trained_window - near))

    def reference_by_text(self, i: Tensor, j: Tensor, texts: Sequence[str], pairs: int, trained_window: int) -> tuple[Tensor, Tensor]:
        """Every token's block and place, found in the whole text before it."""
        (near, longest), starts = self._sizes(trained_window), [0]
        for token in range(1, len(texts)):
            before, last = "".join(texts[:token]), "".join(texts[: token - 1])
            if _ENDS[self.blocks](before) > _ENDS[self.blocks](last) or token - starts[-1] == longest:
                starts.append(token)
        at = torch.arange(len(texts))
        block = (at[:, None] >= torch.tensor(starts)).sum(1) - 1
        place = at - torch.tensor(starts)[block]
        both = torch.where((torch.arange(pairs) < round(self.split * pairs)), place[:, None], block[:, None])
        far = near + both[i.clamp(min=0)[:, 0], None] - both[j.clamp(min=0)[0]]
        return torch.where((i - j < near)[..., None], (i - j)[..., None], far), j <= i


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
