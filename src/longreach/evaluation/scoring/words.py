"""Answers compared by their words: normalised equality, F1 and ROUGE."""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE = re.compile(  # InfiniteBench's list, which lacks a few
    "[\u2013\u2014\u2018\u2019\u201b-\u201f\u2026\u2027\u3001-\u3003\u300b-\u3011\u3014-\u301f\u3030\u303e\u303f\ufe4f\uff01-\uff0d\uff0f"
    "\uff1a-\uff20\uff3b-\uff40\uff5b-\uff64]"
)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_NO_WORD = re.compile(r"[^a-z0-9]+")


def normalized(text: str) -> str:
    """Lower case, without punctuation and articles, words one space apart (SQuAD, arXiv:1606.05250).

    >>> normalized("The  cat, a dog!")
    'cat dog'
    """
    return without_articles(text.lower())


def without_articles(text: str) -> str:
    """The same with its case left."""
    return " ".join(_ARTICLE.sub(" ", text.translate(_PUNCTUATION)).split())


def characters(text: str) -> list[str]:
    """The characters of a Chinese text without punctuation and white space, which are its tokens."""
    return list("".join(_CHINESE.sub("", text.lower().translate(_PUNCTUATION)).split()))


def same(written: str, right: str) -> float:
    """1 where both are the same once normalised."""
    return float(normalized(written) == normalized(right))


def word_f1(written: str, right: str) -> float:
    """F1 of the normalised words, each counted as often as it stands."""
    return token_f1(normalized(written).split(), normalized(right).split())


def token_f1(written: Sequence[str], right: Sequence[str]) -> float:
    """F1 of tokens, each counted as often as it stands; 0 where one side has none."""
    return _f1(sum((Counter(written) & Counter(right)).values()), len(written), len(right))


def rouge_n(written: str, right: str, n: int) -> float:
    """ROUGE-N: F1 of runs of n words (Lin, 2004), without stemming; words are what lies between other signs than a-z and 0-9."""
    ours, theirs = (list(zip(*(words[start:] for start in range(n)), strict=False)) for words in (rouge_words(written), rouge_words(right)))
    return _f1(sum((Counter(ours) & Counter(theirs)).values()), len(ours), len(theirs))


def rouge_l(written: str, right: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words."""
    ours, theirs = rouge_words(written), rouge_words(right)
    return _f1(common_subsequence(ours, theirs), len(ours), len(theirs))


def rouge_l_recall(written: str, right: str) -> float:
    """The share of the right words that the longest common subsequence has."""
    theirs = rouge_words(right)
    return common_subsequence(rouge_words(written), theirs) / len(theirs) if theirs else 0.0


def rouge_l_sum(written: str, right: str) -> float:
    """ROUGE-Lsum: for each line of the right text the words that it has in common, in order, with any line of what was written."""
    ours, theirs = ([words for line in text.split("\n") if (words := rouge_words(line))] for text in (written, right))
    left = [Counter(word for words in lines for word in words) for lines in (ours, theirs)]
    hits = 0
    for line in theirs:
        for place in sorted({place for words in ours for place in _common_places(line, words)}):
            word = line[place]
            if all(counts[word] > 0 for counts in left):
                hits += 1
                for counts in left:
                    counts[word] -= 1
    return _f1(hits, sum(map(len, ours)), sum(map(len, theirs)))


@lru_cache(maxsize=8)
def rouge_words(text: str) -> tuple[str, ...]:
    """The words that ROUGE compares."""
    return tuple(_NO_WORD.sub(" ", text.lower()).split())


def common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, all tokens of `first` at once in the bits of one number (Hyyrö, 2004)."""
    places: dict[str, int] = {}
    for place, token in enumerate(first):
        places[token] = places.get(token, 0) | 1 << place
    whole = row = (1 << len(first)) - 1
    for token in second:
        meets = row & places.get(token, 0)
        row = (row + meets | row - meets) & whole
    return len(first) - row.bit_count()


def best(scores: Iterable[float]) -> float:
    """The best of some scores, 0 of none."""
    return max(scores, default=0.0)


def _common_places(first: Sequence[str], second: Sequence[str]) -> list[int]:
    """Where in `first` the longest common subsequence stands that goes as far back in `second` as it can at each step."""
    number = {word: index for index, word in enumerate(dict.fromkeys((*first, *second)))}
    row, column = (np.array([number[word] for word in words]) for words in (first, second))
    lengths = np.zeros((len(first) + 1, len(second) + 1), dtype=np.int32)
    for index, word in enumerate(row):
        step = np.maximum(lengths[index, 1:], lengths[index, :-1] + (column == word))
        lengths[index + 1, 1:] = np.maximum.accumulate(step)
    found, i, j = list[int](), len(first), len(second)
    while i and j:
        if row[i - 1] == column[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif lengths[i, j - 1] > lengths[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return found


def _f1(common: int, written: int, right: int) -> float:
    """Harmonic mean of what share of the written is common and what share of the right."""
    if not common:
        return 0.0
    precision, recall = common / written, common / right
    return 2 * precision * recall / (precision + recall)
