"""Several needles in a haystack: numbers of many keys stand in real text, and one, some, or all of a kind are asked for.

Paper: RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024, arXiv:2404.06654
Cost: one pass over each passage for all its questions; up to 12 written tokens for each number of an answer.
Limits: the facts are found by their very words, in a form that real text does not have.
Differs from the paper: several questions to each text; what is not asked for is what distracts (a question's numbers stand among those of
the others); an answer is marked by F1, so that listing everything does not pay; `conditional` is from Needle Threading (arXiv:2411.05000),
with keys of words in place of UUIDs.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import numerals, spread
from longreach.evaluation.asking.marks import all_said, first_said, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import word_pairs
from longreach.evaluation.text_task import Ability, TextTask

Form = Literal["multi_key", "multi_value", "multi_query", "conditional"]

_DIGITS = 7
_NUMBER = rf"\d{{{_DIGITS}}}"
_SIGNS = "*#+=&%@~"  # one of which is in a key, where keys are asked for by a condition
_HEAD = "Special magic numbers are hidden in the text below. Remember them: they will be asked for afterwards.\n\n"


class _Fact(NamedTuple):
    depth: float
    key: str
    value: str

    @property
    def said(self) -> str:
        return f"\nOne of the special magic numbers for {self.key} is: {self.value}.\n"


@dataclass(frozen=True, kw_only=True)
class Needles(TextTask):
    """Args: form: what is asked for: `multi_key`, the number of one key of many; `multi_value`, all numbers of a key; `multi_query`, the
    numbers of several keys; `conditional`, the numbers of all keys that hold a certain sign. questions: to each text (2 to 8). each: how
    many numbers a question asks for (>= 1); of `multi_key`, how many keys there are for each question, which asks for one of them.
    """

    info: ClassVar = MethodInfo(title="RULER: What's the Real Context Size of Your Long-Context Language Models?", paper="arXiv:2404.06654")
    ability: ClassVar[Ability] = "literal"
    metric: ClassVar[str] = "f1"
    form: Form = "multi_key"
    questions: int = 4
    each: int = 4

    def __post_init__(self) -> None:
        at_least(self, 2, "questions")
        at_least(self, 1, "each")
        at_most(self, len(_SIGNS), "questions")

    def passage(self, space: Space) -> Passage:
        """Real text with all facts, each in a part of its own."""
        groups = self._groups(space.rng())
        asks = tuple(self._ask(groups, number) for number in range(self.questions))
        facts = [(fact.depth, fact.said) for group in groups for fact in group]
        return Passage(text=space.filled(facts, asks, before=_HEAD), asks=asks)

    def _groups(self, rng: np.random.Generator) -> list[list[_Fact]]:
        """The facts of each question: where it names their keys, as it names them, and in the order of the text otherwise."""
        count = self.questions * self.each
        names, values, depths = word_pairs(rng, count), numerals(rng, count, _DIGITS), spread(count, rng)
        signs, groups = rng.permutation(list(_SIGNS)), []
        for number in range(self.questions):
            own = slice(number * self.each, (number + 1) * self.each)
            keys = names[own]
            if self.form == "multi_value":
                keys = keys[:1] * self.each
            if self.form == "conditional":
                keys = [_signed(key, str(signs[number]), rng) for key in keys]
            facts = [_Fact(*fact) for fact in zip(depths[own], keys, values[own], strict=True)]
            groups.append(sorted(facts) if self.form in ("multi_value", "conditional") else facts)
        return groups

    def _ask(self, groups: list[list[_Fact]], number: int) -> Ask:
        facts = groups[number]
        if self.form == "multi_key":
            facts = facts[:1]
            choices = [fact.value for group in groups for fact in group]
        else:
            choices = [", ".join(fact.value for fact in group) for group in groups]
        text, opening = _wording(self.form, [fact.key for fact in facts])
        return Ask(
            text=text, opening=opening, right=", ".join(fact.value for fact in facts), choices=tuple(choices),
            most_tokens=12 * len(facts) + 12, until=("\n",) if len(facts) == 1 else ("\n\n",), depth=min(fact.depth for fact in facts),
            evidence=tuple(fact.said for fact in facts),
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """F1 of the numbers that are written; where one is asked for, in the first sentence that has any."""
        right = all_said(_NUMBER, ask.right)
        return overlap((all_said if len(right) > 1 else first_said)(_NUMBER, written), right)


def _signed(key: str, sign: str, rng: np.random.Generator) -> str:
    """The key with the sign somewhere inside its words."""
    place = int(rng.integers(1, len(key)))
    return f"{key[:place]}{sign}{key[place:]}"


def _wording(form: Form, keys: list[str]) -> tuple[str, str]:
    """The question, and how its answer begins."""
    if form == "conditional":
        sign = next(letter for letter in keys[0] if letter in _SIGNS)
        named = f"all keys that hold the sign {sign}"
        return f"What are the special magic numbers for {named} in their names?", f"The special magic numbers for {named} are"
    if len(set(keys)) > 1:
        named = f"{', '.join(keys[:-1])} and {keys[-1]}"
        return f"What are the special magic numbers for {named} that the text above mentions?", f"The special magic numbers for {named} are"
    if len(keys) > 1:
        asked = f"What are all the special magic numbers for {keys[0]} that the text above mentions?"
        return asked, f"The special magic numbers for {keys[0]} are"
    return f"What is the special magic number for {keys[0]} that the text above mentions?", f"The special magic number for {keys[0]} is"


METHOD = Needles
EXAMPLES = (
    Needles(),
    Needles(form="multi_value"),
    Needles(form="multi_query", questions=3),
    Needles(form="conditional", each=3),
)
BAD = ({"questions": 1}, {"questions": 9}, {"each": 0})
