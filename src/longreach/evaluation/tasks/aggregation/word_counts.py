"""Word counts: which words of a long list are the most common, or the most frequent of a coded text.

Paper: RULER: What's the Real Context Size of Your Long-Context Language Models?, 2024, arXiv:2404.06654
Cost: one pass over each passage, and up to 12 written tokens for each word of an answer.
Limits: lists of words are no text; the answer hangs on counts alone.
Differs from the paper: an answer is marked by F1, so that listing more words does not pay; the words of `common` are the same at every
length and not fewer below 4,096 tokens; no example comes before the list; after some 900 words, uncommon ones are pairs (`brave-otter`);
a coded text has as many words as have a count, and not a fiftieth of its tokens.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from longreach.core.errors import SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.marks import answered, overlap
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import ADJECTIVES, NOUNS, word_pairs
from longreach.evaluation.text_task import Ability, TextTask

_WORDS = tuple(word for word in dict.fromkeys(NOUNS + ADJECTIVES) if word not in ("common", "even", "just", "all", "list"))
_OTHERS = 3  # wrong answers among the choices
_CODED = 6  # letters of a coded word
_FREQUENT = 3  # coded words that are asked for
_DOTS = "...."  # the most frequent one, which does not count
_COMMON_HEAD = "Below is a numbered list of words. Some of them appear more often than the others. Memorize those that appear most often.\n"
_CODED_HEAD = f"Read the following coded text and track how often each coded word appears. Ignore the dots {_DOTS}\n"


@dataclass(frozen=True, kw_only=True)
class WordCounts(TextTask):
    """Args: form: `common`, a list in which some words stand more often than all others, or `frequent`, a coded text whose words are as
    frequent as a zeta distribution has it. words: that are common (paper: 10). repeats: how often each of them stands there (paper: 30).
    rest: how often the others do (paper: 3). All three are for `common`. alpha: exponent of the zeta distribution (paper: 2.0; above 1,
    at most 4), for `frequent`.
    """

    info: ClassVar = MethodInfo(title="RULER: What's the Real Context Size of Your Long-Context Language Models?", paper="arXiv:2404.06654")
    ability: ClassVar[Ability] = "aggregation"
    metric: ClassVar[str] = "f1"
    needs_text: ClassVar[bool] = False
    form: Literal["common", "frequent"] = "common"
    words: int = 10
    repeats: int = 30
    rest: int = 3
    alpha: float = 2.0

    def __post_init__(self) -> None:
        at_least(self, 1, "words", "rest")
        if self.repeats <= self.rest:
            raise SpecError(f"{self.name()}: repeats={self.repeats} must be above rest={self.rest}")
        if not 1 < self.alpha <= 4:
            raise SpecError(f"{self.name()}: alpha={self.alpha} must be above 1, and 4 at most")
        if self.words > 50:
            raise SpecError(f"{self.name()}: words={self.words} must be at most 50")
        for setting in ("words", "repeats", "rest") if self.form == "frequent" else ("alpha",):
            if getattr(self, setting) != getattr(WordCounts, setting):
                raise SpecError(f"{self.name()}: {setting}={getattr(self, setting)} has no effect on form={self.form}")

    def passage(self, space: Space) -> Passage:
        """A list as long as there is room for, and one question."""
        return self._common(space) if self.form == "common" else self._frequent(space)

    def _common(self, space: Space) -> Passage:
        words = _drawn_words(space.rng(), self.words * (1 + _OTHERS))
        asks = (_ask(words, self.words, f"What are the {self.words} most common words in the list above?",
                     f"The {self.words} words that appear most often in the list are:"),)  # fmt: skip

        def text(uncommon: int) -> str:
            drawn = _drawn_words(space.rng(), self.words + uncommon)
            listed = drawn[: self.words] * self.repeats + drawn[self.words :] * self.rest
            order = space.rng("order").permutation(len(listed)).tolist()
            return _COMMON_HEAD + " ".join(f"{number}. {listed[place]}" for number, place in enumerate(order, start=1))

        return Passage(text=text(space.listed(text, asks, least=self.words * _OTHERS)), asks=asks)

    def _frequent(self, space: Space) -> Passage:
        words = _coded(space.rng("coded"), _FREQUENT * (1 + _OTHERS))
        asks = (_ask(words, _FREQUENT, f"What are the {_FREQUENT} words that appear most often in the coded text above? Ignore the dots.",
                     f"The {_FREQUENT} coded words that appear most often are:"),)  # fmt: skip

        def text(size: int) -> str:
            counts = zeta_counts(size, self.alpha)
            names = np.array([_DOTS, *_coded(space.rng("coded"), len(counts) - 1)])
            whole = np.repeat(names, counts)
            return _CODED_HEAD + " ".join(whole[space.rng("order").permutation(len(whole))].tolist())

        least = math.ceil(_zeta(self.alpha) / (4**-self.alpha - 5**-self.alpha))  # so that the fourth word stands out from the fifth
        return Passage(text=text(space.listed(text, asks, least=least)), asks=asks)

    def mark(self, ask: Ask, written: str) -> float:
        """F1 of the words of the list's kind that are written."""
        return overlap(self._named(answered(ask, written)), self._named(ask.right))

    def _named(self, written: str) -> set[str]:
        words = "".join(letter if letter.isalpha() or letter == "-" else " " for letter in written.lower()).split()
        if self.form == "frequent":
            return {word for word in words if len(word) == _CODED}
        return {word for word in words if word in _KNOWN or all(part in _KNOWN for part in word.split("-"))}


_KNOWN = frozenset(_WORDS)


def zeta_counts(size: int, alpha: float) -> np.ndarray:
    """How often each word of a text of about `size` words stands in it: of the most frequent first, size * rank ** -alpha / zeta(alpha)."""
    most = int(size ** (1 / alpha)) + 1  # no word of a higher rank has a count of 1
    counts = (size * np.arange(1, most + 1, dtype=np.float64) ** -alpha / _zeta(alpha)).astype(np.int64)
    return counts[counts > 0]


def _zeta(alpha: float, terms: int = 1000) -> float:
    """Riemann's zeta function: a partial sum, and the Euler-Maclaurin formula for what is left."""
    ranks = np.arange(1, terms, dtype=np.float64)
    return float((ranks**-alpha).sum() + terms ** (1 - alpha) / (alpha - 1) + terms**-alpha / 2 + alpha * terms ** (-alpha - 1) / 12)


def _ask(words: list[str], each: int, text: str, opening: str) -> Ask:
    """A question for the first words; the next ones are wrong answers."""
    listed = [", ".join(words[start : start + each]) for start in range(0, len(words), each)]
    return Ask(text=text, opening=opening, right=listed[0], choices=tuple(listed), most_tokens=12 * each, until=("\n\n",))


def _drawn_words(rng: np.random.Generator, count: int) -> list[str]:
    """So many different words: single ones while there are any, then pairs. The first ones are the same for any count."""
    single = [_WORDS[place] for place in rng.permutation(len(_WORDS))]
    return [*single[:count], *word_pairs(rng, max(0, count - len(single)))]


def _coded(rng: np.random.Generator, count: int) -> list[str]:
    """So many different words of random letters; the first ones are the same for any count."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chr(97 + letter) for letter in rng.integers(26, size=_CODED).tolist())] = None
    return list(found)


METHOD = WordCounts
EXAMPLES = (WordCounts(), WordCounts(form="frequent"), WordCounts(words=5, repeats=6, rest=1), WordCounts(form="frequent", alpha=1.5))
BAD = (
    {"words": 0},
    {"words": 51},
    {"repeats": 3},
    {"rest": 0},
    {"form": "frequent", "alpha": 1.0},
    {"form": "frequent", "alpha": 5.0},
    {"form": "rare"},
    {"alpha": 1.5},
    {"form": "frequent", "words": 5},
)
