"""FLenQA: the same two key paragraphs, True or False, in padding of any kind, length and place.

Paper: Same Task, More Tokens: the Impact of Input Length on the Reasoning Performance of Large Language Models, 2024, arXiv:2402.14848
Cost: one pass over each passage for all its questions, and up to 8 written tokens for each.
Limits: one step of reasoning; half of all statements are true, so that chance is one half.
Differs from the paper: texts are our own; a passage has four statements about the same paragraphs, two of them true, none of which can be
told from one paragraph alone but a false one of `rules`; there is no prompt for chains of thought.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import Drawn, woven
from longreach.evaluation.asking.marks import choice_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.reasoning._people import MEN, SURNAMES, WOMEN
from longreach.evaluation.text_task import Ability, TextTask

Form = Literal["relations", "rooms", "rules"]
Padding = Literal["other", "similar", "same"]
Place = Literal["first", "middle", "last", "random", "apart"]

_REMARKS = (
    "Nobody who knows them would say otherwise.",
    "It has been like that for as long as anyone can remember.",
    "The neighbours mention it now and then, mostly when the weather gives them nothing to talk about.",
    "There are letters and photographs that show as much.",
    "It came up again at breakfast, and everybody agreed.",
    "A visitor once doubted it, and was put right within a minute.",
    "The local paper printed a line about it years ago.",
    "It is one of those things that are plain to see.",
    "Whoever comes by can find it out without asking twice.",
    "At the bakery around the corner they tell it to every newcomer.",
)
_RELATIONS = (("older", "younger"), ("taller", "shorter"), ("faster", "slower"), ("stronger", "weaker"), ("richer", "poorer"))
_ROOMS = ("kitchen", "study", "living room", "bedroom", "dining room", "guest room", "music room", "playroom")
_LOOKS = (
    "marble-floored", "wood-panelled", "blue-walled", "high-ceilinged", "thickly carpeted", "brightly lit", "freshly painted", "candle-lit",
    "white-tiled", "half-empty",
)  # fmt: skip
_TRAITS = ("big", "kind", "quiet", "rich", "clever", "young", "cold", "round", "rough", "proud")
_FOLLOWS = ("famous", "lucky", "welcome", "admired", "invited", "envied")
_PEOPLE = 4  # in two key paragraphs, at most


class _Keys(NamedTuple):
    """Two key sentences, and statements about both."""

    sentences: tuple[str, str]
    statements: tuple[tuple[str, bool], ...]


@dataclass(frozen=True, kw_only=True)
class Flenqa(TextTask):
    """Args: form: monotone `relations` (older, taller), people in `rooms`, or simple `rules`. padding: what stands around the key
    paragraphs: `other` (real text), `similar` (paragraphs like them about others) or `same` (the key paragraphs again and again).
    place: where the two stand: together `first`, in the `middle`, `last` or at `random`, or `apart`; not for `same`, where they
    are everywhere.
    """

    info: ClassVar = MethodInfo(
        title="Same Task, More Tokens: the Impact of Input Length on the Reasoning Performance of Large Language Models",
        paper="arXiv:2402.14848",
    )
    ability: ClassVar[Ability] = "latent"
    form: Form = "relations"
    padding: Padding = "other"
    place: Place = "apart"

    def __post_init__(self) -> None:
        if self.padding == "same" and self.place != "apart":
            raise SpecError(f"{self.name()}: place={self.place} has no effect on padding=same")

    def passage(self, space: Space) -> Passage:
        """The key paragraphs in as much padding as there is room for."""
        rng = space.rng(self.form)
        people = _People(space.rng("people"))
        keys = _MADE[self.form](rng, people.next())
        paragraphs = [f"{sentence} {remark}" for sentence, remark in zip(keys.sentences, rng.permutation(_REMARKS), strict=False)]
        depths, everywhere = _depths(self.place, rng), self.padding == "same"
        about = {"padding": self.padding, "place": self.place, "form": self.form}
        asks = tuple(
            Ask(
                text=f"True or False: {statement} Answer True or False.", right=str(right), choices=("True", "False"), most_tokens=8,
                depth=None if everywhere else min(depths), evidence=() if everywhere else keys.sentences, about=about,
            )
            for statement, right in keys.statements
        )  # fmt: skip
        if self.padding == "other":
            pieces = [(depth, f"\n{paragraph}\n") for depth, paragraph in zip(depths, paragraphs, strict=True)]
            return Passage(text=space.filled(pieces, asks), asks=asks)
        return Passage(text=self._padded(space, people, paragraphs, depths, asks), asks=asks)

    def _padded(self, space: Space, people: "_People", paragraphs: list[str], depths: list[float], asks: tuple[Ask, ...]) -> str:
        rng = space.rng("padding", self.form)

        def similar() -> list[str]:
            sentences = _MADE[self.form](rng, people.next()).sentences
            return [f"{sentence} {_REMARKS[int(rng.integers(len(_REMARKS)))]}" for sentence in sentences]

        drawn = Drawn(similar)
        remarks = " ".join(_REMARKS).split()

        def text(items: int, rest: int) -> str:
            if self.padding == "same":
                whole = [paragraphs[number % 2] for number in range(items + 2)]
            else:
                others = [one for pair in drawn.first((items + 1) // 2) for one in pair][:items]
                whole = woven(others, list(zip(depths, paragraphs, strict=True)))
            return "\n".join([*whole, " ".join(remarks[:rest])]) if rest else "\n".join(whole)

        return text(*space.topped(text, asks, least=2, most=len(remarks)))

    def mark(self, ask: Ask, written: str) -> float:
        """Whether True or False, the right one alone, is in the first sentence that has either; `not true` is False."""
        return choice_said(ask, written.lower().replace("not true", "false"))


class _People:
    """Groups of people, none of whom is in two; after all surnames were had, with a number. The first ones are the same for any count."""

    def __init__(self, rng: np.random.Generator) -> None:
        firsts = WOMEN + MEN
        self._names = [f"{first} {last}" for first in firsts for last in SURNAMES]
        self._order, self._taken = rng.permutation(len(self._names)).tolist(), 0

    def next(self) -> list[str]:
        """The next four."""
        names = []
        for place in range(self._taken, self._taken + _PEOPLE):
            again, at = divmod(place, len(self._order))
            names.append(self._names[self._order[at]] + (f" the {_ordinal(again + 1)}" if again else ""))
        self._taken += _PEOPLE
        return names


def _ordinal(number: int) -> str:
    return f"{number}{'th' if 10 < number % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def _relations(rng: np.random.Generator, people: list[str]) -> _Keys:
    first, second, third = people[:3]
    more, less = _RELATIONS[int(rng.integers(len(_RELATIONS)))]
    sentences = [
        f"{first} is {more} than {second}." if rng.random() < 0.5 else f"{second} is {less} than {first}.",
        f"{second} is {more} than {third}." if rng.random() < 0.5 else f"{third} is {less} than {second}.",
    ]
    statements = (
        (f"{first} is {more} than {third}.", True),
        (f"{third} is {more} than {first}.", False),
        (f"{first} is {less} than {third}.", False),
        (f"{third} is {less} than {first}.", True),
    )
    return _shuffled(rng, sentences, statements)


def _rooms(rng: np.random.Generator, people: list[str]) -> _Keys:
    first, second, owner = people[:3]
    rooms = [f"{owner}'s {room}" for room in rng.choice(_ROOMS, 2, replace=False)]
    looks = [str(look) for look in rng.choice(_LOOKS, 2, replace=False)]
    sentences = [
        f"{rooms[0]} is {looks[0]}, while {rooms[1]} is {looks[1]}.",
        f"{first} is in {rooms[0]}, and {second} is in {rooms[1]}.",
    ]
    statements = tuple(
        (f"{person} is in a room that is {look}.", right)
        for person, look, right in (
            (first, looks[0], True), (first, looks[1], False), (second, looks[0], False), (second, looks[1], True),
        )
    )  # fmt: skip
    return _shuffled(rng, sentences, statements)


def _rules(rng: np.random.Generator, people: list[str]) -> _Keys:
    """Two of four people have both traits, one has only the first, and one only the second."""
    one, other = (str(trait) for trait in rng.choice(_TRAITS, 2, replace=False))
    follows = _FOLLOWS[int(rng.integers(len(_FOLLOWS)))]
    both, also, first, second = people
    sentences = [
        f"{both}, {first} and {also} are {one}, which {second} is not.",
        f"{second}, {also} and {both} are {other}, which {first} is not.",
    ]
    rule = f"From the rule that whoever is {one} and {other} is {follows}, and from the text above, it follows that"
    statements = tuple((f"{rule} {person} is {follows}.", right) for person, right in zip(people, (True, True, False, False), strict=True))
    return _shuffled(rng, sentences, statements)


def _shuffled(rng: np.random.Generator, sentences: list[str], statements: tuple[tuple[str, bool], ...]) -> _Keys:
    first, second = (sentences[place] for place in rng.permutation(2))
    return _Keys((first, second), tuple(statements[place] for place in rng.permutation(len(statements))))


_MADE: dict[Form, Callable[[np.random.Generator, list[str]], _Keys]] = {"relations": _relations, "rooms": _rooms, "rules": _rules}


def _depths(place: Place, rng: np.random.Generator) -> list[float]:
    """Where the two key paragraphs stand."""
    random, other = float(rng.random()), sorted(float(depth) for depth in rng.random(2))
    return other if place == "apart" else [{"first": 0.0, "middle": 0.5, "last": 1.0, "random": random}[place]] * 2


METHOD = Flenqa
EXAMPLES = (
    Flenqa(),
    Flenqa(form="rooms", padding="similar"),
    Flenqa(form="rules", padding="similar", place="random"),
    Flenqa(padding="same"),
    Flenqa(form="rooms", place="first"),
)
BAD = ({"padding": "none"}, {"place": "second"}, {"form": "riddle"}, {"padding": "same", "place": "first"})
