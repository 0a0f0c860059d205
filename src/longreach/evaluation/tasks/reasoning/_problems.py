"""Short reasoning problems: premises that are understood one by one, a question about all of them, and four answers to choose from."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from longreach.evaluation.tasks.reasoning._people import MEN, full_names

PEOPLE = 6  # names that a problem may take


class Puzzle(NamedTuple):
    """Premises in an order in which they can be read; the right answer is one of four choices."""

    premises: tuple[str, ...]
    question: str
    opening: str
    right: str
    choices: tuple[str, ...]


def problem(kind: str, rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """A problem of one of `KINDS` about some of the people (6 of them)."""
    made = _MADE[kind](rng, people)
    return made._replace(choices=tuple(made.choices[place] for place in rng.permutation(len(made.choices))))


_SHOPS = (
    ("bakery", "loaves", "trays"), ("bookshop", "atlases", "crates"), ("nursery", "tulips", "beds"), ("dairy", "cheeses", "racks"),
    ("pottery", "vases", "crates"), ("toy shop", "kites", "cartons"),
)  # fmt: skip


def _stock(rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """What is left after goods came and went."""
    shop, goods, holder = _SHOPS[int(rng.integers(len(_SHOPS)))]
    where = f"{people[0]}'s {shop}"
    full, each, came, sold, spoiled = (int(number) for number in rng.integers((4, 14, 20, 11, 2), (9, 21, 38, 20, 10)))
    right, away = full * each + came - sold - spoiled, (spoiled, sold, came)
    premises = (
        f"On Monday morning, {where} had {full} full {holder} of {goods}.",
        f"At {where}, {each} {goods} make a full {holder.removesuffix('s')}.",
        f"On Tuesday, a lorry brought {came} more {goods} to {where}.",
        f"On Wednesday, {where} sold {sold} {goods} to the school.",
        f"On Thursday, {where} had to throw {spoiled} {goods} away.",
    )
    return Puzzle(
        premises, f"How many {goods} did {where} have in the end?",
        f"The number of {goods} that {where} had in the end is",
        str(right), tuple(map(str, _near(rng, right, [right - one for one in away], [right + one for one in away]))),
    )  # fmt: skip


def _near(rng: np.random.Generator, right: int, below: Sequence[int], above: Sequence[int]) -> list[int]:
    """The right number, and three others that do not tell by their size which is right."""
    less = int(rng.integers(4))
    return [right, *below[:less], *above[: 3 - less]]


_ORDERS = (("older", "oldest"), ("taller", "tallest"), ("richer", "richest"), ("stronger", "strongest"), ("quicker", "quickest"))
_RANKS = ("second ", "third ", "fourth ")


def _order(rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """Who comes second, third or fourth of five."""
    more, most = _ORDERS[int(rng.integers(len(_ORDERS)))]
    ranked, rank = people[:5], int(rng.integers(len(_RANKS)))
    pairs = list(pairwise(ranked))
    premises = tuple(f"{first} is {more} than {second}." for first, second in (pairs[place] for place in rng.permutation(len(pairs))))
    named = [ranked[place] for place in rng.permutation(len(ranked))]
    others = [name for name in named if name != ranked[rank + 1]][:3]
    asked = f"Of {', '.join(named[:-1])} and {named[-1]}, who is the {_RANKS[rank]}{most}?"
    return Puzzle(premises, asked, f"The {_RANKS[rank]}{most} of them is", ranked[rank + 1], (ranked[rank + 1], *others))


def _family(rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """What somebody is to somebody else, over three or four steps."""
    elder, parent, other, child, cousin = people[:5]
    premises = [f"{elder} is the {_of(elder, 'parent')} of {parent}.", f"{parent} is the {_of(parent, 'parent')} of {child}."]
    beside = f"{elder} is the {_of(elder, 'parent')} of {other}."
    below = f"{other} is the {_of(other, 'parent')} of {cousin}."
    right = tuple(_KIN)[int(rng.integers(len(_KIN)))]
    if right == "great-grandparent":
        premises.append(f"{child} is the {_of(child, 'parent')} of {cousin}.")
    else:
        premises += [beside, below] if right == "cousin" else [beside]
    who, whom = {
        "aunt or uncle": (other, child), "niece or nephew": (child, other), "cousin": (child, cousin), "great-grandparent": (elder, cousin),
        "grandparent": (elder, child), "sibling": (parent, other), "grandchild": (child, elder),
    }[right]  # fmt: skip
    others = [str(one) for one in rng.permutation([one for one in _KIN if one != right])[:3]]
    said = [_of(who, one) for one in (right, *others)]
    return Puzzle(tuple(premises), f"What is {who} to {whom}?", f"{who} is {whom}'s", said[0], tuple(said))


_KIN = {
    "aunt or uncle": ("aunt", "uncle"),
    "niece or nephew": ("niece", "nephew"),
    "cousin": ("cousin", "cousin"),
    "great-grandparent": ("great-grandmother", "great-grandfather"),
    "grandparent": ("grandmother", "grandfather"),
    "sibling": ("sister", "brother"),
    "grandchild": ("granddaughter", "grandson"),
}


def _of(name: str, kin: str) -> str:
    """The word for a relation that fits a name."""
    return {"parent": ("mother", "father"), **_KIN}[kin][name.split()[0] in MEN]


def _schedule(rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """When somebody's turn comes, by the turns of others."""
    first, second, third, fourth = people[:4]
    start = int(rng.integers(4 * 9, 4 * 14)) * 15
    steps = [int(step) * 15 for step in rng.permutation(np.arange(1, 8))[:3]]
    signs = [1, -1, 1] if rng.random() < 0.5 else [1, 1, -1]
    premises = [f"{first}'s talk begins at {_clock(start)}."]
    at = start
    for before, who, step, sign in zip((first, second, third), (second, third, fourth), steps, signs, strict=True):
        premises.append(f"{who}'s talk begins {step} minutes {'after' if sign > 0 else 'before'} that of {before}.")
        at += sign * step
    times = tuple(map(_clock, _near(rng, at, [at - step for step in steps], [at + step for step in steps])))
    return Puzzle(tuple(premises), f"When does {fourth}'s talk begin?", f"{fourth}'s talk begins at", times[0], times)


def _clock(minutes: int) -> str:
    return f"{minutes // 60}:{minutes % 60:02}"


_TREASURES = ("silver ring", "old map", "violin", "chess set", "pearl brooch", "pocket watch", "blue vase", "stamp album")


def _culprit(rng: np.random.Generator, people: Sequence[str]) -> Puzzle:
    """Who of four is left when three are ruled out."""
    owner, *four = people[:5]
    what = f"{owner}'s {_TREASURES[int(rng.integers(len(_TREASURES)))]}"
    named = [four[place] for place in rng.permutation(4)]
    reasons = (
        "was abroad when {what} was taken.", "had no key to the room from which {what} was taken.",
        "was seen at the theatre when {what} was taken.",
    )  # fmt: skip
    premises = [f"Either {named[0]}, {named[1]}, {named[2]} or {named[3]} took {what}."]
    premises += [f"{name} {reason.format(what=what)}" for name, reason in zip(four[1:], reasons, strict=True)]
    return Puzzle(tuple(premises), f"Who took {what}?", f"The one who took {what} is", four[0], tuple(four))


_MADE: dict[str, Callable[[np.random.Generator, Sequence[str]], Puzzle]] = {
    "stock": _stock, "order": _order, "family": _family, "schedule": _schedule, "culprit": _culprit,
}  # fmt: skip
KINDS = tuple(_MADE)

_BEFORE = (
    "It had rained since the early morning.", "The market was as crowded as ever.", "Someone had left the window open.",
    "A letter had come the day before.", "In those weeks little else was talked about.", "The tea was still too hot to drink.",
    "There was a knock at the door, and nobody there.", "The clock in the hall had stopped again.", "It was in the middle of the holidays.",
    "The road to the station was closed.",
)  # fmt: skip
_AFTER = (
    "Nobody made much of it at the time.", "So it was written down, and soon forgotten.", "That much at least was certain.",
    "It was mentioned once more at dinner.", "A neighbour had heard the same.", "Then the conversation turned to other things.",
    "The postman nodded and went on his way.", "One could read it in the paper, too.", "After that, the evening was quiet.",
    "The dog slept through all of it.",
)  # fmt: skip


def expanded(premise: str, rng: np.random.Generator) -> str:
    """A paragraph that says the premise among other things."""
    return f"{_BEFORE[int(rng.integers(len(_BEFORE)))]} {premise} {_AFTER[int(rng.integers(len(_AFTER)))]}"


def groups(rng: np.random.Generator, count: int) -> list[list[str]]:
    """So many groups of people, nobody in two of them."""
    names = full_names(rng, PEOPLE * count)
    return [names[start : start + PEOPLE] for start in range(0, len(names), PEOPLE)]
