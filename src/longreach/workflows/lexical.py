"""Lexical search: which passages share the rare words of a query (BM25, Robertson and Zaragoza 2009, with the usual k1 and b)."""

import math
import re
from collections import Counter
from collections.abc import Sequence

_K1, _B = 1.2, 0.75
_WORD = re.compile(r"\w+", re.UNICODE)


class LexicalIndex:
    """Passages that can be searched. Words are compared without case."""

    def __init__(self, passages: Sequence[str]) -> None:
        self._counts = [Counter(words_of(passage)) for passage in passages]
        lengths = [counts.total() for counts in self._counts]
        mean = sum(lengths) / len(lengths) if lengths else 0.0
        self._damping = [_K1 * (1 - _B + _B * length / mean) if mean else _K1 for length in lengths]
        self._having = Counter(word for counts in self._counts for word in counts)

    def scores(self, query: str) -> list[float]:
        """Of each passage, how well it matches a query; 0: it shares no word of it."""
        weights = {word: self._rarity(word) for word in sorted(set(words_of(query)))}
        return [
            sum(weight * counts[word] * (_K1 + 1) / (counts[word] + damping) for word, weight in weights.items() if word in counts)
            for counts, damping in zip(self._counts, self._damping, strict=True)
        ]

    def _rarity(self, word: str) -> float:
        having = self._having[word]
        return math.log(1 + (len(self._counts) - having + 0.5) / (having + 0.5))

    def ranked(self, query: str) -> list[int]:
        """The passages, best first; of equals the earlier one first."""
        scores = self.scores(query)
        return sorted(range(len(scores)), key=lambda number: (-scores[number], number))


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())
