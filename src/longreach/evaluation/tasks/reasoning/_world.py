"""A small world of people who walk about, take things and put them down, told sentence by sentence."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from longreach.evaluation.tasks.reasoning._people import first_names

_PLACES = (
    "kitchen", "garden", "hallway", "office", "bathroom", "bedroom", "cellar", "attic", "library", "garage", "balcony", "workshop",
    "pantry", "terrace", "laundry", "nursery",
)  # fmt: skip
_OBJECTS = (
    "apple", "football", "milk", "lantern", "umbrella", "newspaper", "teapot", "blanket", "hammer", "violin", "map", "basket", "camera",
    "candle", "pillow", "kettle",
)  # fmt: skip
_GO = ("went to", "moved to", "travelled to", "walked to", "hurried to", "went over to", "strolled to", "ran to", "came to", "returned to")
_TAKE = ("picked up", "took", "grabbed", "got", "collected")
_DROP = ("put down", "dropped", "discarded", "set down", "left")
_NOT = ("is no longer in", "is not in", "has left")


class Place(NamedTuple):
    """Where somebody or something is, and the numbers of the sentences that say so. `name`: "" where it is only known where it is not."""

    name: str
    said: tuple[int, ...]


class World:
    """Args: people, places, objects: how many there are. denies: people are also said not to be where they were."""

    def __init__(self, rng: np.random.Generator, *, people: int, places: int, objects: int, denies: bool = False) -> None:
        self.people = first_names(rng, people)
        self.places = [str(name) for name in rng.choice(_PLACES, places, replace=False)]
        self.objects = [str(name) for name in rng.choice(_OBJECTS, objects, replace=False)]
        self.sentences: list[str] = []
        self.been: dict[str, list[Place]] = {name: [] for name in self.people}
        self.carried: dict[str, dict[str, int]] = {name: {} for name in self.people}  # person -> thing -> sentence that says it was taken
        self.handled: dict[str, list[int]] = {name: [] for name in self.people}  # sentences that say that somebody took or dropped a thing
        self.kept: dict[str, list[Place]] = {name: [] for name in self.objects}  # thing -> places, one after another
        self._rng, self._denies = rng, denies

    def happens(self, progress: float) -> None:
        """One more sentence. People leave the story as it goes on (0 to 1), so that what holds in the end is said all over it."""
        person = self._one(self.people[min(int(progress * len(self.people)), len(self.people) - 2) :])
        at = self.been[person][-1] if self.been[person] else Place("", ())
        what = self._rng.random()
        here = [thing for thing in self.objects if self._in_reach(thing, at.name)] if at.name else []
        if what < 0.25 and here:
            self._take(person, self._one(here), at)
        elif what < 0.4 and at.name and self.carried[person]:
            self._drop(person, self._one(list(self.carried[person])))
        elif what < 0.55 and at.name and self._denies:
            self.been[person].append(Place("", (self._say(person, _NOT, at.name, "."),)))
        else:
            self._go(person, self._one([place for place in self.places if place != at.name]))

    def where(self, person: str) -> str:
        """The place that somebody is in; "" where it is not known."""
        return self.been[person][-1].name if self.been[person] else ""

    def _in_reach(self, thing: str, place: str) -> bool:
        held = any(thing in things for things in self.carried.values())
        return not held and (not self.kept[thing] or self.kept[thing][-1].name == place)

    def _go(self, person: str, place: str) -> None:
        said = self._say(person, _GO, place, ".")
        self.been[person].append(Place(place, (said,)))
        for thing, taken in self.carried[person].items():
            self.kept[thing].append(Place(place, (taken, said)))

    def _take(self, person: str, thing: str, at: Place) -> None:
        said = self._say(person, _TAKE, thing, " there.")
        self.handled[person].append(said)
        self.carried[person][thing] = said
        self._lies(thing, Place(at.name, (*at.said, said)))

    def _drop(self, person: str, thing: str) -> None:
        said = self._say(person, _DROP, thing, " there.")
        self.handled[person].append(said)
        del self.carried[person][thing]
        at = self.been[person][-1]
        self._lies(thing, Place(at.name, (*at.said, said)))

    def _lies(self, thing: str, place: Place) -> None:
        """A thing changes hands and not its place: what says where it is now replaces what said it before."""
        if self.kept[thing]:
            self.kept[thing].pop()
        self.kept[thing].append(place)

    def _say(self, person: str, verbs: Sequence[str], what: str, end: str) -> int:
        """The number of a new sentence, in words that nobody has used for the same."""
        new = [text for verb in verbs if (text := f"{person} {verb} the {what}{end}") not in self.sentences]
        self.sentences.append(self._one(new))
        return len(self.sentences) - 1

    def _one(self, names: Sequence[str]) -> str:
        return names[int(self._rng.integers(len(names)))]
