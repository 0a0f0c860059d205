"""Several needles in a haystack: numbers of many keys stand in a long text, and one, some, or all of a kind are asked for.

Paper: RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024, arXiv:2404.06654
Cost: one pass over each passage for all its questions; up to 12 written tokens for each number of an answer.
Limits: the facts are found by their very words; in real text nothing else has their form.
Differs from the paper: several questions to each text; what is not asked for is what distracts (a question's numbers stand among those of
the others); an answer is marked by F1, so that listing everything does not pay; `conditional` is from Needle Threading (arXiv:2411.05000),
with keys of words in place of UUIDs.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from longreach.core.method import MethodInfo, at_least, at_most
from longreach.evaluation.asking.items import numerals, spread, woven
from longreach.evaluation.asking.marks import all_said, first_said, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import word_pairs
from longreach.evaluation.text_task import Ability, TextTask

Form = Literal["multi_key", "multi_value", "multi_query", "conditional"]

_DIGITS = 7
_NUMBER = rf"\d{{{_DIGITS}}}"
_SIGNS = "*#+=&%@~$"  # one of which is in a key, where keys are asked for by a condition
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
    numbers of several keys; `conditional`, the numbers of all keys that hold a certain sign. haystack: what they stand in: `text`, which is
    real, or `needles`, which are facts of the same form about other keys. questions: to each text (2 to 8). each: how
    many numbers a question asks for (>= 1); of `multi_key`, how many keys there are for each question, which asks for one of them.
    """

    info: ClassVar = MethodInfo(title="RULER: What's the Real Context Size of Your Long-Context Language Models?", paper="arXiv:2404.06654")
    ability: ClassVar[Ability] = "literal"
    metric: ClassVar[str] = "f1"
    form: Form = "multi_key"
    haystack: Literal["text", "needles"] = "text"
    questions: int = 4
    each: int = 4

    def __post_init__(self) -> None:
        at_least(self, 2, "questions")
        at_least(self, 1, "each")
        at_most(self, len(_SIGNS) - 1, "questions")

    def passage(self, space: Space) -> Passage:
        """A haystack with all facts that are asked for, each in a part of its own."""
        groups = self._groups(space)
        asks = tuple(self._ask(groups, number) for number in range(self.questions))
        facts = [(fact.depth, fact.said) for group in groups for fact in group]
        if self.haystack == "text":
            return Passage(text=space.filled(facts, asks, before=_HEAD), asks=asks)

        def text(count: int) -> str:
            return _HEAD + "".join(woven(self._others(space, count), facts))

        return Passage(text=text(space.listed(text, asks, least=1)), asks=asks)

    def _others(self, space: Space, count: int) -> list[str]:
        """Facts that nothing is asked about."""
        names = word_pairs(space.rng("names"), self.questions * self.each + count)[self.questions * self.each :]
        values = space.rng("values").integers(10 ** (_DIGITS - 1), 10**_DIGITS, size=count).tolist()
        if self.form == "conditional":  # with signs that nothing is asked about
            spare, drawn = self._signs(space)[self.questions :], space.rng("spare").random((count, 2)).tolist()
            names = [_signed(name, spare[int(which * len(spare))], place) for name, (which, place) in zip(names, drawn, strict=True)]
        return [_Fact(0.0, name, str(value)).said for name, value in zip(names, values, strict=True)]

    def _groups(self, space: Space) -> list[list[_Fact]]:
        """The facts of each question: where it names their keys, as it names them, and in the order of the text otherwise."""
        rng, count = space.rng(), self.questions * self.each
        values, depths, names = numerals(rng, count, _DIGITS), spread(count, rng), word_pairs(space.rng("names"), count)
        groups = []
        for number in range(self.questions):
            own = slice(number * self.each, (number + 1) * self.each)
            keys = names[own]
            if self.form == "multi_value":
                keys = keys[:1] * self.each
            if self.form == "conditional":
                keys = [_signed(key, self._signs(space)[number], rng.random()) for key in keys]
            facts = [_Fact(*fact) for fact in zip(depths[own], keys, values[own], strict=True)]
            groups.append(sorted(facts) if self.form in ("multi_value", "conditional") else facts)
        return groups

    def _signs(self, space: Space) -> list[str]:
        """Of the questions in turn, and then those that no question is about."""
        return [str(sign) for sign in space.rng("signs").permutation(list(_SIGNS))]

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


def _signed(key: str, sign: str, place: float) -> str:
    """The key with the sign somewhere inside it. Args: place: 0 to 1."""
    at = 1 + int(place * (len(key) - 1))
    return f"{key[:at]}{sign}{key[at:]}"


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
    Needles(form="conditional", haystack="needles"),
)
BAD = ({"questions": 1}, {"questions": 9}, {"each": 0})
