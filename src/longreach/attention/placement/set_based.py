"""Set-Based Prompting: marked parts of a prompt are read side by side, so that what is written cannot hang on their order.

Paper: Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem, 2024, arXiv:2406.06581
Cost: each part is read over what stands before the set, so less attention than in one text; a cache holds all of them.   Limits: a
prompt at a time, that goes on after its last set; no model was trained on parts at one position, and a small one may take one part's answer
for another's. Layers with a sliding window keep all.
Differs from the paper: parts are put in an order of their own before they are read, so that not even rounding tells how they were given;
a part is cut into tokens as text inside a text is, without special tokens.

`Which is larger? <set>a cat<or>a mouse</set> Answer:` is read as the text before the set, each part after it at the same positions, and the
rest after the longest part; the marks themselves are not read. A text without marks is read as ever.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

from longreach.attention.base import ReadsSets
from longreach.core.errors import InputError, SpecError
from longreach.core.method import Claim, MethodInfo


@dataclass(frozen=True, kw_only=True)
class SetBased(ReadsSets):
    """Args: open, between, close: marks in the text before a set, between its parts and after it (no one inside another)."""

    info: ClassVar = MethodInfo(
        title="Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem",
        paper="arXiv:2406.06581",
        claims=(
            Claim(text="the output is the same for every order of the marked parts", metric="order_difference", at_most=0),
            Claim(
                text="accuracy stays within, or near, the spread that the orders of the parts have without it",
                metric="right_above_lowest",
                at_least=0,
            ),
        ),
    )
    open: str = "<set>"
    between: str = "<or>"
    close: str = "</set>"

    def __post_init__(self) -> None:
        marks = {"open": self.open, "between": self.between, "close": self.close}
        for name, mark in marks.items():
            if not mark.strip():
                raise SpecError(f"{self.name()}: {name}={mark} must be some characters")
            other = next((each for each in marks if each != name and mark in marks[each]), None)
            if other:
                raise SpecError(f"{self.name()}: {name}={mark} stands in {other}={marks[other]} too, and could not be told from it")

    def parts(self, text: str) -> tuple[str | tuple[str, ...], ...]:
        """Texts between sets as they stand, empty ones left out; sets as tuples of their parts."""
        found: list[str | tuple[str, ...]] = []
        inside: list[str] | None = None
        begin = 0
        for mark in re.finditer("|".join(map(re.escape, (self.open, self.between, self.close))), text):
            piece, begin = text[begin : mark.start()], mark.end()
            if (inside is None) != (mark[0] == self.open):
                where = "outside of" if inside is None else "inside"
                raise InputError(f"{self.name()}: {mark[0]} at character {mark.start()} stands {where} a set")
            if inside is None:
                found.append(piece)
                inside = []
                continue
            if not piece:
                raise InputError(f"{self.name()}: the part before {mark[0]} at character {mark.start()} is empty")
            inside.append(piece)
            if mark[0] == self.close:
                found.append(tuple(inside))
                inside = None
        if inside is not None:
            raise InputError(f"{self.name()}: the last set has no {self.close}")
        return tuple(part for part in (*found, text[begin:]) if part)


METHOD = SetBased
EXAMPLES = (SetBased(), SetBased(open="[[", between="||", close="]]"))
NEUTRAL = (SetBased(),)
BAD = ({"open": " "}, {"open": "<or>"}, {"between": "set"})
