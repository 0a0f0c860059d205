"""Code run: what a function returns that calls another one, which calls another one, and so on, among many that do not matter.

Paper: InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens, 2024, arXiv:2402.13718
Cost: one pass over each passage, and as many written tokens as working it out takes (256 at most).
Limits: additions and subtractions alone; the names are numbers, so that only exact copying finds the next function.
Differs from the paper: every function belongs to a chain of its own, of the same number of calls as the one that is asked for; the number
of functions follows from the length.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.benchmarks import _infinitebench_rules as rules
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "These are Python functions.\n\n"
_DIGITS = 6  # of names
_ADDED = range(-12, 18)  # the paper's
_GIVEN = range(-10, 11)


class _Function(NamedTuple):
    name: int
    text: str


@dataclass(frozen=True, kw_only=True)
class CodeRun(TextTask):
    """Args: calls: functions that are called one by the other (paper: 2 to 10; >= 1)."""

    info: ClassVar = MethodInfo(title="InfiniteBench: Extending Long Context Evaluation Beyond 100K Tokens", paper="arXiv:2402.13718")
    ability: ClassVar[Ability] = "latent"
    needs_text: ClassVar[bool] = False
    calls: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "calls")

    def passage(self, space: Space) -> Passage:
        """Functions by their names, so that what one calls may stand anywhere."""
        names = _FunctionNames(space.rng("names"))
        wanted, added = _chain(names, space.rng(), self.calls)
        given = int(space.rng("given").choice(_GIVEN))
        asks = (_ask(wanted, given, given + added),)
        others_rng = space.rng("others")
        others = Drawn(lambda: _chain(names, others_rng, self.calls)[0])

        def text(chains: int, rest: int) -> str:
            *whole, last = others.first(chains + 1)
            functions = [*wanted, *(one for chain in whole for one in chain), *(last[-rest:] if rest else ())]
            return _HEAD + "\n\n".join(one.text for one in sorted(functions)) + "\n"

        return Passage(text=text(*space.topped(text, asks, least=1, most=self.calls - 1)), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the last word is the right number."""
        return rules.mark("code_run", written, ask.expected)


class _FunctionNames:
    """Draws numbers, each once."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng, self._drawn = rng, set[int]()

    def next(self) -> int:
        """Another one."""
        while (name := int(self._rng.integers(10 ** (_DIGITS - 1), 10**_DIGITS))) in self._drawn:
            pass
        self._drawn.add(name)
        return name


def _chain(names: _FunctionNames, rng: np.random.Generator, calls: int) -> tuple[list[_Function], int]:
    """Functions of which each calls the next one, and what they add in all."""
    called = [names.next() for _ in range(calls)]
    added = [int(rng.choice(_ADDED)) for _ in called]
    values = [*(f"func_{name}(x)" for name in called[1:]), "x"]
    functions = [
        _Function(name, f"def func_{name}(x):\n    return {value} {'-' if more < 0 else '+'} {abs(more)}")
        for name, value, more in zip(called, values, added, strict=True)
    ]
    return functions, sum(added)


def _ask(chain: list[_Function], given: int, answer: int) -> Ask:
    return Ask(
        text=f"What does func_{chain[0].name}({given}) return? Work it out, and write the number as the last word of your answer.",
        opening="It returns", right=str(answer), most_tokens=256, until=(), evidence=tuple(one.text for one in chain), expected=answer,
        about={"calls": len(chain)},
    )  # fmt: skip


METHOD = CodeRun
EXAMPLES = (CodeRun(), CodeRun(calls=1))
BAD = ({"calls": 0},)
