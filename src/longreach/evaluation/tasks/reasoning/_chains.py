"""Facts that lead from one to the next: a person, a company, a town, a river, a lake."""

from typing import NamedTuple

import numpy as np

from longreach.evaluation.tasks.reasoning._people import SURNAMES, full_names

MOST_HOPS = 4

_HEADS = ("Bramble", "Copper", "Dun", "Elder", "Fal", "Grim", "Hollow", "Ister", "Juniper", "Kestrel", "Lang", "Mill", "Nether", "Otter",
          "Pine", "Raven", "Silver", "Thorn", "Under", "Wether")  # fmt: skip
_TOWNS = ("bridge", "ford", "mere", "stead", "wick", "ham", "combe", "haven", "cliff", "market")
_RIVERS = ("water", "burn", "beck", "brook", "bourne", "run", "rill", "stream", "flow", "leap")
_LAKES = ("pool", "tarn", "deep", "loch", "basin", "glass", "still", "reach", "broad", "eye")
_TRADES = ("Optics", "Mills", "Shipping", "Instruments", "Printing", "Ceramics", "Seeds", "Textiles", "Bicycles", "Tools")
_SAID = (
    "{} has worked for {} since leaving school, and means to stay there.",
    "The head office of {} has always been in {}, close to the station.",
    "The town of {} lies on the river {}, which floods its lower streets in spring.",
    "The river {} flows into lake {}, not far from the old ferry.",
)
_ASKED = {
    2: ("In which town is the head office of the company that {} works for?", "{} works for a company with its head office in"),
    3: (
        "On which river lies the town with the head office of the company that {} works for?",
        "The company that {} works for has its head office in a town on the river",
    ),
    4: (
        "Into which lake flows the river of the town with the head office of the company that {} works for?",
        "The company that {} works for has its head office in a town on a river that flows into lake",
    ),
}


class FactDocument(NamedTuple):
    """What a document is about, and the sentence of it that counts."""

    title: str
    fact: str


class Chain(NamedTuple):
    """Documents that lead from a person to an answer."""

    documents: tuple[FactDocument, ...]
    question: str
    opening: str
    answer: str


def chains(rng: np.random.Generator, count: int, hops: int) -> list[Chain]:
    """So many chains that have nothing in common; the first ones are the same for any count, and of a longer one the beginning."""
    people = full_names(rng, count)
    companies = _names(rng, [f"{surname} {trade}" for surname in SURNAMES for trade in _TRADES], count)
    towns, rivers, lakes = (
        _names(rng, [f"{head}{tail}" for head in _HEADS for tail in tails], count) for tails in (_TOWNS, _RIVERS, _LAKES)
    )
    made = []
    for links in zip(people, companies, towns, rivers, lakes, strict=True):
        documents = [FactDocument(links[step], _SAID[step].format(links[step], links[step + 1])) for step in range(hops)]
        question, opening = (text.format(links[0]) for text in _ASKED[hops])
        made.append(Chain(tuple(documents), question, opening, links[hops]))
    return made


def most_chains() -> int:
    """How many can be had."""
    return len(_HEADS) * len(_TOWNS)


def _names(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    return [names[place] for place in rng.permutation(len(names))[:count]]
