"""LongChat-Lines: a record of lines, each with a name and a number; the numbers of some lines are asked for.

Paper: Giraffe: Adventures in Expanding Context Lengths in LLMs, 2023, arXiv:2308.10882
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each.
Limits: the lines are all alike, so that only their names tell them apart; nothing but looking up is asked for.
Differs from the paper: several lines are asked for in each record; a record has any length.
"""

from dataclasses import dataclass
from typing import ClassVar

from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import numerals, spread, woven
from longreach.evaluation.asking.marks import NUMBER, first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import word_pairs
from longreach.evaluation.text_task import Ability, TextTask

_HEAD = "Below is a record of lines. Each begins with the name of the line and ends with its REGISTER_CONTENT, a number. Remember them.\n\n"
_DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class GiraffeLines(TextTask):
    """Args: questions: to each record (>= 2); their numbers are each other's candidates."""

    info: ClassVar = MethodInfo(title="Giraffe: Adventures in Expanding Context Lengths in LLMs", paper="arXiv:2308.10882")
    ability: ClassVar[Ability] = "literal"
    needs_text: ClassVar[bool] = False
    questions: int = 8

    def __post_init__(self) -> None:
        at_least(self, 2, "questions")

    def passage(self, space: Space) -> Passage:
        """As many lines as there is room for; those that are asked for stand in parts of their own."""
        rng = space.rng()
        values, depths = numerals(rng, self.questions, _DIGITS), spread(self.questions, rng)
        names = word_pairs(space.rng("names"), self.questions)
        wanted = [(depth, _line(name, value)) for depth, name, value in zip(depths, names, values, strict=True)]
        asks = tuple(
            Ask(
                text=f"What is the REGISTER_CONTENT of line {name}?", opening=f"The REGISTER_CONTENT of line {name} is", right=f"<{value}>",
                choices=tuple(f"<{one}>" for one in values), most_tokens=12, depth=depth, evidence=(line,),
            )
            for name, value, (depth, line) in zip(names, values, wanted, strict=True)
        )  # fmt: skip

        def text(lines: int) -> str:
            others = word_pairs(space.rng("names"), self.questions + lines)[self.questions :]
            numbers = space.rng("numbers").integers(10 ** (_DIGITS - 1), 10**_DIGITS, size=lines).tolist()
            return _HEAD + "".join(woven([_line(*one) for one in zip(others, numbers, strict=True)], wanted))

        return Passage(text=text(space.listed(text, asks, least=1)), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first number that is written is the right one."""
        return is_only(first_said(NUMBER, written), ask.right.strip("<>"))


def _line(name: str, value: object) -> str:
    return f"line {name}: REGISTER_CONTENT is <{value}>\n"


METHOD = GiraffeLines
EXAMPLES = (GiraffeLines(),)
BAD = ({"questions": 1},)
