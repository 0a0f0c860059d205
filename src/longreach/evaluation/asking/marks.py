"""What tasks mark answers by: the things of some form that an answer names, and how many of them are right."""

import re
from collections.abc import Collection, Iterable, Sequence

from longreach.evaluation.asking.passage import Ask

NUMBER = r"\d+"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"

_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")


def first_said(pattern: str, written: str) -> tuple[str, ...]:
    """All different things of a form in the first sentence that has any, in lower case: what is said after that is not the answer.

    Args: pattern: a regular expression for the lower-case text; it is found only where no letter or digit touches it.
    """
    whole = re.compile(rf"(?<![^\W_])(?:{pattern})(?![^\W_])")
    for sentence in _SENTENCE.split(written.lower()):
        if found := whole.findall(sentence):
            return tuple(dict.fromkeys(found))
    return ()


def all_said(pattern: str, written: str) -> tuple[str, ...]:
    """All different things of a form in an answer, in lower case."""
    return tuple(dict.fromkeys(re.findall(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", written.lower())))


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of the words, the longest that fits."""
    return "|".join(re.escape(word.lower()) for word in sorted(words, key=len, reverse=True))


def answered(ask: Ask, written: str) -> str:
    """What is written without the opening, where that is repeated before it."""
    begun = written.lstrip()
    return begun[len(ask.opening) :] if begun.lower().startswith(ask.opening.lower()) else begun


def choice_said(ask: Ask, written: str) -> float:
    """1 where the right choice, and no other, is named in the first sentence that names any."""
    return is_only(first_said(any_of(ask.choices), answered(ask, written)), ask.right)


def is_only(found: Sequence[str], right: str) -> float:
    """1 where the right thing, and nothing else, was found."""
    return float(tuple(found) == (right.lower(),))


def overlap(found: Collection[str], right: Collection[str]) -> float:
    """F1: the harmonic mean of the share of what was found that is right, and the share of what is right that was found."""
    common = len(set(found) & set(right))
    return 2 * common / (len(set(found)) + len(set(right))) if common else 0.0
