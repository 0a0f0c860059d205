"""LabelledText texts: the user's own, or made of sentences about topics."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from longreach.core.errors import InputError

Part = Literal["headline", "paragraph", "document"]


class LabelledText(NamedTuple):
    """A text of a label: its headline, and paragraphs."""

    label: str
    headline: str
    paragraphs: tuple[str, ...]

    def part(self, part: Part) -> str:
        """The headline, the paragraph in the middle, or everything."""
        if part == "headline":
            return self.headline
        return self.paragraphs[len(self.paragraphs) // 2] if part == "paragraph" else "\n".join([self.headline, *self.paragraphs])


def corpus(path: Path) -> tuple[LabelledText, ...]:
    """The texts of JSON Lines with `text` and `label`, or of a folder with a folder of `.txt` files for each label.

    Raises: InputError for what is neither, and for fewer than two labels.
    """
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> tuple[LabelledText, ...]:
    found = _of_folder(path) if path.is_dir() else _of_lines(path)
    if len({one.label for one in found}) < 2:
        raise InputError(f"{path} has texts of {len({one.label for one in found})} labels, and at least 2 are needed")
    return tuple(found)


def _of_folder(path: Path) -> list[LabelledText]:
    files = sorted(path.glob("*/*.txt"))
    return [labelled(file.parent.name, file.read_text(encoding="utf-8", errors="replace"), str(file)) for file in files]


def _of_lines(path: Path) -> list[LabelledText]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            label, text = str(row["label"]), str(row["text"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f'{path}, line {number}: each line has to be a JSON object with "text" and "label"') from None
        found.append(labelled(label, text, f"{path}, line {number}"))
    return found


def labelled(label: str, text: str, where: str = "a text") -> LabelledText:
    """A text taken apart: its first line is the headline, or its first sentence where it has but one line.

    Raises: InputError for an empty one.
    """
    lines = [" ".join(line.split()) for line in text.split("\n")]
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{where} is empty")
    if len(lines) > 1:
        return LabelledText(label, lines[0], tuple(lines[1:]))
    first, end, rest = lines[0].partition(". ")
    return LabelledText(label, first, (rest,) if end else (first,))


_TOPICS = """
the goalkeeper; the relay team; the young sprinter; the coach of the rowing club; the cyclist from the next town; the captain of the
volleyball side; the referee; the pole vaulter
missed the decisive penalty; won the regional league; tore a hamstring in training; set a record over four hundred metres; asked for a
substitution at half-time; celebrated the cup with the fans; protested against the offside call; warmed up on the touchline

the pastry chef; the owner of the noodle bar; the grandmother with the cast-iron pan; the baker of the flat rye loaves; the new saucier; the
judge of the soup contest; the woman at the spice stall; the caterer
let the dough rest overnight; roasted the carrots with cumin; burnt the caramel twice; stirred butter into the risotto; wrote down a recipe
for pickled plums; whisked the egg whites by hand; salted the broth too early; braised the lamb for six hours

the cold front; a belt of heavy showers; the thunderstorm over the hills; the morning fog; a gale from the north-west; the first frost; the
heat wave; an area of high pressure
moved in from the coast; brought hailstones as large as cherries; lifted slowly in the valleys; sent temperatures below zero; left thirty
millimetres of rain; lasted until sunset; calmed down over night; made the barometer fall

the space telescope; a faint comet; the crew of the observatory; the probe near Saturn; a pair of neutron stars; the new survey of distant
galaxies; the red giant; the lunar lander
sent back pictures of the rings; was seen close to the constellation of Lyra; passed through the shadow of the moon; showed the redshift of
a quasar; entered its orbit; emitted more infrared light than thought; crossed the ecliptic; was eclipsed for an hour

the string quartet; the organist of the old church; the singer of the indie band; the conductor; the last student of the composer; the jazz
trio; the second violinist; the opera chorus
rehearsed the slow movement; released an album of ballads; tuned down by a semitone; played an encore in D minor; improvised over the bass
line; recorded the sonata in one take; forgot the second verse; received a standing ovation

the savings bank; the finance minister; a group of shareholders; the insurance company; the central bank; the auditor of the fund; the owner
of the start-up; the pension scheme
raised the interest rate by a quarter point; sold its bonds at a loss; cut the dividend; reported higher profits; warned of inflation; asked
for a loan without collateral; moved its deposits abroad; revised the budget

the nurse on the night shift; the physiotherapist; the clinic for children; a team of surgeons; the village doctor; the board of the vaccine
trial; the patient with the rare allergy; the pharmacist
recommended more sleep; lowered the dose of the painkiller; reported fewer infections; sterilised the scalpels; measured the blood pressure
twice; warned of side effects; treated a case of pneumonia; prescribed a course of antibiotics

the owner of the rose nursery; the allotment club; the botanist with the straw hat; the beekeeper; the head of the orchard; the winner of
the pumpkin show; the woman with the greenhouse; the bulb grower
pruned the apple trees; spread compost on the flower beds; sowed radishes under glass; fought slugs with copper tape; grafted a twig onto
the old pear; watered the seedlings at dawn; planted tulips along the hedge; mulched the strawberries with straw
"""
_WHEN = "yesterday; on Tuesday; once again; to the surprise of all; as so often; this week; in spite of everything; for the third time"
_NEUTRAL = (
    "More about it tomorrow.", "Not everybody agreed.", "There was no comment.", "It was the talk of the town.", "Our reporter was there.",
    "Nobody had seen it coming.", "Others had tried it before.", "It may not be the last time.",
)  # fmt: skip
_PARAGRAPHS = 4


def _topic(block: str) -> tuple[list[str], list[str]]:
    """Who, and what they did: two lists of two lines each."""
    lines = block.split("\n")
    half = len(lines) // 2
    return " ".join(lines[:half]).split("; "), " ".join(lines[half:]).split("; ")


TOPICS = tuple(_topic(block) for block in _TOPICS.strip().split("\n\n"))


def made(topic: int, label: str, rng: np.random.Generator) -> LabelledText:
    """A text about one of the `TOPICS`: every sentence but one in a paragraph says which."""
    who, what = TOPICS[topic]

    def sentence() -> str:
        said = f"{_one(who, rng)} {_one(what, rng)}"
        return said[0].upper() + said[1:]

    def paragraph() -> str:
        return f"{sentence()} {_one(_WHEN.split('; '), rng)}. {_one(_NEUTRAL, rng)} {sentence()}. {sentence()}."

    return LabelledText(label, sentence(), tuple(paragraph() for _ in range(_PARAGRAPHS)))


def _one(values: Sequence[str], rng: np.random.Generator) -> str:
    return values[int(rng.integers(len(values)))]
