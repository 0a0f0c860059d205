"""Questions about the numbers of real text: sentences in which a rare number stands, with the number left out."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np

from longreach.core.errors import InputError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.filler import placed
from longreach.evaluation.asking.items import spread
from longreach.evaluation.asking.marks import NUMBER, answered, first_said, is_only
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.text_task import Ability, TextTask

_CHOICES = 6
_YEARS = range(1000, 2101)
_YEAR_STEP = 10  # a year is changed by so much at most
_RARE = 20  # times that a number may stand in all of the text
_BEFORE, _AFTER = 200, 120  # characters of a sentence that are asked with, before its number and after it
_WORDS = 4  # that a sentence has before its number, at least
_AROUND = 400  # characters of text on either side that belong to a sentence, to whole lines

_WHOLE = re.compile(r"(?<![\w.,:/-])\d{2,6}(?![\w]|[.,:/-]\w)")
_ANY = re.compile(r"\d+")
_WORD = re.compile(r"[^\W\d_]{2,}")
_BEGIN = re.compile(r"[.!?]\s+|\n\s*\n|\S*\d\S*\s")
_END = re.compile(r"[.!?](?=\s)|\n\s*\n")


class Cloze(NamedTuple):
    """A sentence with a number. Args: block: of the text around it, to whole lines. at: of the number in the text."""

    number: str
    start: int
    at: int
    end: int
    block: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class NumberTask(TextTask):
    """Sections of real text, each with a sentence whose number is asked for, stand in parts of their own of more of it.

    Elsewhere in the passage the number is not to be had: where it stands there, `several` does in its place.
    """

    info: ClassVar = MethodInfo(title="Giraffe: Adventures in Expanding Context Lengths in LLMs", paper="arXiv:2308.10882")
    ability: ClassVar[Ability] = "literal"
    questions: int = 4

    def __post_init__(self) -> None:
        at_least(self, 1, "questions")

    @abstractmethod
    def told(self, number: str, other: str) -> str:
        """What the passage says: the number, or the other one that it may be changed to."""

    def passage(self, space: Space) -> Passage:
        """The questions are the same for every task of this kind, so that what a change costs can be seen."""
        rng = np.random.default_rng((space.seed, space.number))
        text = space.filler.text
        chosen = self._chosen(text, rng)
        depths, numbers = spread(self.questions, rng), _numbers(text)
        pieces, asks = [], []
        for one, depth in zip(chosen, depths, strict=True):
            others = alike(one.number, numbers, rng)
            told = self.told(one.number, others[0])
            first, last = one.block
            before, after = text[first : one.at], text[one.at + len(one.number) : last]
            pieces.append((depth, f"\n\n{before.lstrip(chr(10))}{told}{after.rstrip()}\n\n"))
            asks.append(self._ask(text, one, told, list(dict.fromkeys([told, one.number, *others])), depth, rng))
        hidden = re.compile(rf"(?<!\d)(?:{'|'.join(one.number for one in chosen)})(?!\d)")
        return Passage(text=space.shaped(lambda more: placed(hidden.sub("several", more), pieces), asks), asks=tuple(asks))

    def _chosen(self, text: str, rng: np.random.Generator) -> list[Cloze]:
        """So many sentences with different numbers, none of which stands in the section of another."""
        known, chosen = stated(text), list[Cloze]()
        for place in rng.permutation(len(known)):
            one = known[place]
            if all(_apart(text, one, other) for other in chosen):
                chosen.append(one)
            if len(chosen) == self.questions:
                return chosen
        raise InputError(
            f"{self.name()}: the text has {len(chosen)} sentences that state a rare number, and {self.questions} are to be asked for; "
            "give more text (--text), or ask fewer questions"
        )

    def _ask(self, text: str, one: Cloze, told: str, choices: Sequence[str], depth: float, rng: np.random.Generator) -> Ask:
        before = " ".join(text[one.start : one.at].split())
        after = text[one.at + len(one.number) : one.end]
        cloze = f"{before} ____{' ' * after[:1].isspace()}{' '.join(after.split())}"
        shown = choices[:_CHOICES]
        return Ask(
            text=f'Which number is missing from this sentence of the text above? "{cloze}" Answer with the number alone.', opening=before,
            right=told, choices=tuple(shown[place] for place in rng.permutation(len(shown))), most_tokens=10, depth=depth,
            evidence=(f"{text[one.start : one.at]}{told}{after}",),
        )  # fmt: skip

    def mark(self, ask: Ask, written: str) -> float:
        """Whether the first number that is written is the right one, with or without a comma for thousands."""
        said = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", answered(ask, written))
        return is_only(first_said(NUMBER, said)[:1], ask.right)


def alike(number: str, taken: frozenset[str], rng: np.random.Generator) -> list[str]:
    """Other numbers of the same form that nobody has, in random order: years at most 10 away, any others with as many digits."""
    value = int(number)
    if len(number) == 4 and value in _YEARS:
        near = [value + step for step in range(-_YEAR_STEP, _YEAR_STEP + 1) if step]
        found = [str(near[place]) for place in rng.permutation(len(near))]
    else:
        low, high = 10 ** (len(number) - 1), 10 ** len(number)
        found = [str(one) for one in dict.fromkeys(rng.integers(low, high, size=200).tolist()) if one != value]
    return sorted(found, key=lambda one: one in taken)[: _CHOICES - 1]


@lru_cache(maxsize=2)
def stated(text: str) -> tuple[Cloze, ...]:
    """All sentences of a text that can be asked for: words that stand nowhere else before a rare number."""
    counts = Counter(_ANY.findall(text))
    found = [one for at in _WHOLE.finditer(text) if counts[at[0]] <= _RARE and (one := _around(text, at)) is not None]
    begun = Counter(" ".join(text[one.start : one.at].split()) for one in found)
    return tuple(one for one in found if begun[" ".join(text[one.start : one.at].split())] == 1)


@lru_cache(maxsize=2)
def _numbers(text: str) -> frozenset[str]:
    return frozenset(_ANY.findall(text))


def _around(text: str, at: re.Match[str]) -> Cloze | None:
    """The sentence of a number, from the number before it if there is one; None where there is too little to ask with."""
    low = max(0, at.start() - _BEFORE)
    start = max((low + found.end() for found in _BEGIN.finditer(text[low : at.start()])), default=max(low, text.find(" ", low)))
    end = _END.search(text, at.end(), at.end() + _AFTER)
    stop = max(at.end(), text.rfind(" ", 0, at.end() + _AFTER))
    if end is not None:
        stop = end.end() if end[0][0] in ".!?" else end.start()
    start += len(text[start : at.start()]) - len(text[start : at.start()].lstrip())
    before, sentence = text[start : at.start()], text[start:stop]
    if before[-1:] != " " or len(_WORD.findall(before)) < _WORDS or _ANY.search(before) or _times(at[0], sentence) > 1:
        return None
    first = text.rfind("\n", 0, max(0, start - _AROUND)) + 1
    last = text.find("\n", stop + _AROUND)
    block = (first if start - first <= 3 * _AROUND else start, last if stop <= last <= stop + 3 * _AROUND else stop)
    return Cloze(at[0], start, at.start(), stop, (start, stop) if _times(at[0], text[slice(*block)]) > 1 else block)


def _times(number: str, text: str) -> int:
    return _ANY.findall(text).count(number)


def _apart(text: str, one: Cloze, other: Cloze) -> bool:
    """Whether two can be asked for in one passage."""
    overlap = one.block[0] < other.block[1] and other.block[0] < one.block[1]
    return not overlap and not _times(one.number, text[slice(*other.block)]) and not _times(other.number, text[slice(*one.block)])
