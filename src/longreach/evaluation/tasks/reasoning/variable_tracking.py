"""Variable tracking: which variables have a value, by assignments of one to the next that are scattered over the text.

Paper: RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024, arXiv:2404.06654
Cost: one pass over each passage for all its questions, and up to 8 written tokens for each variable of an answer.
Limits: with one chain, all variables of the text are the answer; more chains make it a matter of following them.
Differs from the paper: every chain is asked for; an answer is marked by F1, so that naming all variables does not pay; no example comes
before the text; variables have four letters.
"""

import re
import string
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import numerals, woven
from longreach.evaluation.asking.marks import answered, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.retrieval._noise import NOISE
from longreach.evaluation.text_task import Ability, TextTask

_LETTERS = 4
_HEAD = "Memorize and track the chains of variable assignment that are hidden in the following text.\n\n"


@dataclass(frozen=True, kw_only=True)
class VariableTracking(TextTask):
    """Args: chains: each with a value of its own (paper: 1). hops: assignments of a variable to the next (paper: 4). haystack: repeated
    sentences (`noise`, as in the paper) or real `text`."""

    info: ClassVar = MethodInfo(title="RULER: What's the Real Context Size of Your Long-Context Language Models?", paper="arXiv:2404.06654")
    ability: ClassVar[Ability] = "latent"
    metric: ClassVar[str] = "f1"
    chains: int = 1
    hops: int = 4
    haystack: Literal["noise", "text"] = "noise"

    def __post_init__(self) -> None:
        at_least(self, 1, "chains", "hops")

    def passage(self, space: Space) -> Passage:
        """The assignments of each chain in order, scattered over the haystack."""
        rng = space.rng()
        values = numerals(rng, self.chains, 5)
        names = _names(rng, self.chains * (self.hops + 1))
        chains = [names[start : start + self.hops + 1] for start in range(0, len(names), self.hops + 1)]
        said = [_assigned(value, chain) for value, chain in zip(values, chains, strict=True)]
        depths = [sorted(float(depth) for depth in rng.random(self.hops + 1)) for _ in chains]
        listed = [", ".join(chain) for chain in chains]
        asks = tuple(
            Ask(
                text=f"Find all variables that are assigned the value {value} in the text above, directly or through other variables.",
                opening=f"According to the text, {self.hops + 1} variables are assigned the value {value}:",
                right=listed[number], choices=tuple(listed) if self.chains > 1 else (), most_tokens=8 * (self.hops + 1) + 8,
                until=("\n\n",), depth=depths[number][0], evidence=tuple(said[number]), expected=tuple(names),
            )
            for number, value in enumerate(values)
        )  # fmt: skip
        pieces = [(depth, line) for at, lines in zip(depths, said, strict=True) for depth, line in zip(at, lines, strict=True)]
        if self.haystack == "text":
            return Passage(text=space.filled([(depth, f"\n{line}\n") for depth, line in pieces], asks, before=_HEAD), asks=asks)

        def text(lines: int) -> str:
            return _HEAD + "\n".join(woven([NOISE.strip()] * lines, pieces))

        return Passage(text=text(space.listed(text, asks, least=len(pieces))), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """F1 of the variables that are written; in small letters, too, where the passage has them."""
        return overlap(_variables(ask, answered(ask, written)), _variables(ask, ask.right))


def _names(rng: np.random.Generator, count: int) -> list[str]:
    """So many different names of capitals."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(string.ascii_uppercase[letter] for letter in rng.integers(26, size=_LETTERS))] = None
    return list(found)


def _assigned(value: str, chain: list[str]) -> list[str]:
    return [f"VAR {name} = {before}" for before, name in zip([value, *(f"VAR {name}" for name in chain)], chain, strict=False)]


def _variables(ask: Ask, written: str) -> set[str]:
    words = re.findall(rf"(?<![^\W_])[a-z]{{{_LETTERS}}}(?![^\W_])", written, re.IGNORECASE)
    return {word.upper() for word in words if word.isupper() or word.upper() in ask.expected}


METHOD = VariableTracking
EXAMPLES = (VariableTracking(), VariableTracking(chains=3, hops=2), VariableTracking(chains=2, haystack="text"))
BAD = ({"chains": 0}, {"hops": 0}, {"haystack": "essay"})
