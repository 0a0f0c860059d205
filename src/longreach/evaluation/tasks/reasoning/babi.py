"""bAbI in a haystack: what follows from one, two or three facts about people, places and things, told in order among real text.

Paper: BABILong: Testing the Limits of LLMs with Long Context Reasoning-in-a-Haystack, 2024, arXiv:2406.10149
Cost: one pass over each passage for all its questions, and up to 12 written tokens for each (24 for a list).
Limits: the facts have few forms, and none that real text has, so that a model can find them by their looks; few words, few people.
Differs from the paper: the stories are our own in the manner of bAbI (arXiv:1502.05698) and not its files; `negation` has no people in two
places; several questions to each story; the rules are said before the text, and no examples are given.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.marks import answered, any_of, first_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.reasoning._world import World
from longreach.evaluation.text_task import Ability, TextTask

Form = Literal["one", "two", "three", "negation", "count", "list"]

_PEOPLE, _PLACES, _OBJECTS = 5, 6, 5
_SENTENCES = {"one": 14, "two": 18, "three": 26, "negation": 14, "count": 20, "list": 20}
_COUNTS = ("none", "one", "two", "three", "four", "five")
_NOTHING = ("nothing", "none", "anything", "empty")  # she is not carrying anything, her hands are empty
_HEAD = (
    "Facts about people, places and things stand in the text below, in the order in which they happened. Who has been in several places is "
    "in the last of them. What somebody carries goes with them, and what they put down stays there.\n\n"
)


class _Question(NamedTuple):
    text: str
    opening: str
    right: str
    facts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Babi(TextTask):
    """Args: form: what is asked: where somebody is (`one` fact says it), where a thing is (`two`), where it was before (`three`), whether
    somebody is in a place (`negation`), how many things somebody carries (`count`) or which (`list`). questions: to each story (1 to 5).
    """

    info: ClassVar = MethodInfo(
        title="BABILong: Testing the Limits of LLMs with Long Context Reasoning-in-a-Haystack", paper="arXiv:2406.10149"
    )
    ability: ClassVar[Ability] = "latent"
    form: Form = "one"
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "questions")
        if self.questions > _PEOPLE:
            raise SpecError(f"{self.name()}: questions={self.questions} must be at most {_PEOPLE}")

    def passage(self, space: Space) -> Passage:
        """Real text with the sentences of a story in order, each in a part of its own."""
        rng = space.rng(self.form)
        world, questions = self._told(rng)
        count = len(world.sentences)
        depths = [float((place + rng.random()) / count) for place in range(count)]
        answers = sorted({question.right for question in questions})
        asks = tuple(
            Ask(
                text=question.text, opening=question.opening, right=question.right, choices=self._choices(world, answers),
                most_tokens=24 if self.form == "list" else 12, depth=min((depths[fact] for fact in question.facts), default=None),
                evidence=tuple(world.sentences[fact] for fact in question.facts), expected=tuple(world.objects),
            )
            for question in _of_different_answers(questions, self.questions, rng)
        )  # fmt: skip
        pieces = [(depth, f"\n{sentence}\n") for depth, sentence in zip(depths, world.sentences, strict=True)]
        return Passage(text=space.filled(pieces, asks, before=_HEAD), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the right place (number, yes or no), and no other, is is in the first sentence that has any; a list has to be whole."""
        said = answered(ask, written)
        if self.form == "list":
            pattern = any_of([*ask.expected, *_NOTHING])
            named = {"nothing" if one in _NOTHING else one for one in first_said(pattern, said)}
            return float(named == set(first_said(pattern, ask.right)))
        found = [one for one in first_said(any_of(ask.choices), said) if self.form != "three" or f"the {one}?" not in ask.text]
        return float(found == [ask.right])

    def _told(self, rng: np.random.Generator) -> tuple[World, list[_Question]]:
        """A story about which enough can be asked."""
        while True:
            world = World(rng, people=_PEOPLE, places=_PLACES, objects=_OBJECTS, denies=self.form == "negation")
            for number in range(_SENTENCES[self.form]):
                world.happens(number / _SENTENCES[self.form])
            questions = _ASKED[self.form](world, rng)
            if len({question.text for question in questions}) >= self.questions and len({question.right for question in questions}) > 1:
                return world, questions

    def _choices(self, world: World, answers: list[str]) -> tuple[str, ...]:
        fixed: dict[str, Any] = {"negation": ("yes", "no"), "count": _COUNTS[:4], "list": answers}
        return tuple(fixed.get(self.form, world.places))


def _where(world: World, rng: np.random.Generator) -> list[_Question]:
    return [
        _Question(f"Where is {person} now, after all that the text says? Answer with the place alone.", f"{person} is in the",
                  world.where(person), world.been[person][-1].said)
        for person in world.people if world.where(person)
    ]  # fmt: skip


def _where_thing(world: World, rng: np.random.Generator) -> list[_Question]:
    return [
        _Question(f"Where is the {thing} now, after all that the text says? Answer with the place alone.", f"The {thing} is in the",
                  places[-1].name, places[-1].said)
        for thing, places in world.kept.items() if places
    ]  # fmt: skip


def _where_before(world: World, rng: np.random.Generator) -> list[_Question]:
    found = []
    for thing, places in world.kept.items():
        names = [place.name for place in places]
        for before, place in pairwise(places):
            if names.count(place.name) == 1:
                text = f"Where was the {thing} before it came to the {place.name}? Answer with the place alone."
                opening = f"Before the {thing} came to the {place.name}, it was in the"
                found.append(_Question(text, opening, before.name, tuple(sorted({*before.said, *place.said}))))
    return found


def _whether(world: World, rng: np.random.Generator) -> list[_Question]:
    found = []
    for person, been in world.been.items():
        if not been:
            continue
        others = [place.name for place in been[:-1] if place.name not in ("", been[-1].name)]
        right = "yes" if been[-1].name and rng.random() < 0.5 else "no"
        if right == "no" and not others:
            continue
        place = been[-1].name if right == "yes" else others[-1]
        text = f"Is {person} in the {place} now, after all that the text says? Answer yes or no."
        found.append(_Question(text, "", right, been[-1].said))
    return found


def _how_many(world: World, rng: np.random.Generator) -> list[_Question]:
    return [
        _Question(f"How many things is {person} carrying now? Answer none, one, two or three.",
                  f"The number of things that {person} is carrying is", _COUNTS[len(things)], tuple(world.handled[person]))
        for person, things in world.carried.items() if len(things) < 4
    ]  # fmt: skip


def _which(world: World, rng: np.random.Generator) -> list[_Question]:
    return [
        _Question(f"What is {person} carrying now? Name all of it.", f"{person} is carrying",
                  f"{' and '.join(f'the {thing}' for thing in things) or 'nothing'}.", tuple(world.handled[person]))
        for person, things in world.carried.items()
    ]  # fmt: skip


_ASKED: dict[Form, Any] = {
    "one": _where, "two": _where_thing, "three": _where_before, "negation": _whether, "count": _how_many, "list": _which,
}  # fmt: skip


def _of_different_answers(questions: list[_Question], count: int, rng: np.random.Generator) -> list[_Question]:
    """So many of the questions, in turn of different answers, so that no answer is asked for more often than it has to be."""
    groups: dict[str, list[_Question]] = {}
    for place in rng.permutation(len(questions)):
        groups.setdefault(questions[place].right, []).append(questions[place])
    chosen: list[_Question] = []
    while len(chosen) < count:
        chosen += [group.pop() for group in groups.values() if group]
    return chosen[:count]


METHOD = Babi
EXAMPLES = (Babi(), Babi(form="two"), Babi(form="three", questions=3), Babi(form="negation"), Babi(form="count"), Babi(form="list"))
BAD = ({"questions": 0}, {"questions": 6})
