"""Sentences and their abbreviations: the first letter of each word. How alike two are, and how often an expansion is right."""

import re
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")
_LONGEST = 3  # letters of the pieces by which abbreviations are compared


def spoken_words(sentence: str) -> list[str]:
    """The words of a sentence in lower case; what an apostrophe joins is one.

    >>> spoken_words("I don't know - is it far?")
    ['i', "don't", 'know', 'is', 'it', 'far']
    """
    return [word.lower().replace("\u2019", "'") for word in _WORD.findall(sentence)]


def abbreviation_of(sentence: str) -> str:
    """The first letters of its words, in lower case.

    >>> abbreviation_of("How are you, Anna?")
    'haya'
    """
    return "".join(word[0] for word in spoken_words(sentence))


def letters_of(abbreviation: str) -> str:
    """The letters and digits of an abbreviation as somebody types it, in lower case.

    >>> letters_of("H a y?")
    'hay'
    """
    return "".join(character for character in abbreviation.lower() if character.isalnum())


def likeness(one: str, other: str) -> float:
    """How alike two abbreviations are: Dice's coefficient of their pieces of up to three letters, with their ends; 1 for the same.

    >>> likeness("hay", "hay"), likeness("hay", "iwg")
    (1.0, 0.0)
    """
    pieces = _pieces(one), _pieces(other)
    return 2 * (pieces[0] & pieces[1]).total() / max(1, pieces[0].total() + pieces[1].total())


def expansion_accuracy(right: Sequence[str], found: Sequence[str]) -> float:
    """The share of sentences that are found word for word, without case and punctuation. Raises: ValueError for different numbers of them.

    >>> expansion_accuracy(["How are you?", "See you then"], ["how are you", "see you there"])
    0.5
    """
    same = [spoken_words(one) == spoken_words(other) for one, other in zip(right, found, strict=True)]
    return sum(same) / len(same) if same else 0.0


def _pieces(abbreviation: str) -> Counter[str]:
    ended = f"^{abbreviation}$"
    return Counter(
        ended[at : at + size] for size in range(1, _LONGEST + 1) for at in range(len(ended) - size + 1) if ended[at : at + size].strip("^$")
    )
