"""Code debug: which of four functions, among a great many, has an error in it.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each passage and a few written tokens.
Limits: two kinds of error: a name that is nowhere defined, as two of its letters are swapped, and an attribute of None.
Differs from the paper: functions of the standard library or of source that is given, not projects from PyPI; errors are put in by a
program, which proves that the function still compiles.
"""

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import woven
from longreach.evaluation.asking.marks import all_said, any_of, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.asking.words import NOUNS
from longreach.evaluation.tasks.programs._functions import Function, Sources, functions, with_error
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "These are functions of several Python projects. One of them was given an obvious error on purpose.\n\n\n"
_LETTERS = "ABCD"
_REST = 300  # words of the comment that fills a gap


@dataclass(frozen=True, kw_only=True)
class CodeDebug(TextTask):
    """Args: file: Python source, a file or a folder (default: held-out modules of this Python's standard library)."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "latent"
    needs_text: ClassVar[bool] = False
    file: Sources | None = None

    def passage(self, space: Space) -> Passage:
        """Functions in random order, the four that are named among them. Raises: InputError for too little source."""
        rng = space.rng()
        pool = functions(self.file)
        order = rng.permutation(len(pool)).tolist()
        wrong = _first_wrong(pool, order, rng)
        others = [pool[place] for place in order if pool[place].name != wrong.name]
        named, others = others[:3], others[3:]
        depths = [DEPTHS[space.number % len(DEPTHS)], *rng.random(3).tolist()]
        options = [*named]
        options.insert(right := int(rng.integers(len(_LETTERS))), wrong)
        asks = (_ask(options, right, depths[0]),)

        def text(count: int, rest: int) -> str:
            if count > len(others):
                raise InputError(f"{self.spec}: the source has too few functions for {space.length} {space.units.name}; give more (file=)")
            whole = woven(others[:count], list(zip(depths[1:], named, strict=True)))
            whole.insert(_place(whole, depths[0]), wrong)
            comment = f"\n\n\n# {' '.join(NOUNS[:rest])}" if rest else ""
            return _HEAD + "\n\n\n".join(one.text for one in whole) + comment + "\n"

        return Passage(text=text(*space.topped(text, asks, least=4, most=_REST)), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether no function but the right one is named, by its letter at the beginning or by its name."""
        said, right = written.strip(), ask.expected[_LETTERS.index(ask.right)].lower()
        names = all_said(any_of(ask.expected), said)
        if (letter := re.match(r"([A-D])(?![A-Za-z0-9_])", said)) and not re.search(r"\b[A-D]\b", said[1:]):
            return float(letter[1] == ask.right and set(names) <= {right})
        return is_only(names, right)


def _place(whole: list[Function], depth: float) -> int:
    """Before which function that depth is, counted in characters."""
    starts = np.cumsum([0, *(len(one.text) for one in whole)])
    return int(np.abs(starts - depth * starts[-1]).argmin())


def _first_wrong(pool: tuple[Function, ...], order: list[int], rng: np.random.Generator) -> Function:
    for place in order:
        if (wrong := with_error(pool[place], rng)) is not None:
            return wrong
    raise InputError("no function of the source can be made wrong; give other source (file=)")


def _ask(options: list[Function], right: int, depth: float) -> Ask:
    listed = "\n".join(f"{letter}. {one.name}" for letter, one in zip(_LETTERS, options, strict=True))
    return Ask(
        text=f"In which of these functions is the error? Answer with the letter.\n{listed}", right=_LETTERS[right], choices=tuple(_LETTERS),
        most_tokens=24, depth=depth, evidence=(options[right].text,), expected=[one.name for one in options],
    )  # fmt: skip


METHOD = CodeDebug
EXAMPLES = (CodeDebug(),)
BAD = ({"file": "nowhere.py"},)
