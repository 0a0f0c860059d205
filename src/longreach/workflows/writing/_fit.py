"""As much of a text as so many tokens hold: its beginning or its end."""

import re
from collections.abc import Callable

Count = Callable[[str], int]

_WORD = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")
ENDS = ".!?\u3002\uff01\uff1f"  # of sentences, Chinese ones too
_SENTENCE = re.compile(rf"[{ENDS}]['\")\]]*\s+|[{ENDS[3:]}]")
_LONGEST = 12  # characters that a token has at most, on average
_GIVEN_UP = 0.3  # share of the end of a text that is given up to begin with a sentence
_TRIES = 16


def beginning(text: str, most: int, count: Count) -> str:
    """The beginning of a text in at most `most` tokens, whole words, on one line; `…` says that there is more."""
    text = " ".join(text.split())
    if count(text) <= most:
        return text
    end = words_that_fit(text, lambda end: count(f"{text[:end]} …"), most)
    return f"{text[:end]} …" if end else ""


def words_that_fit(text: str, tokens: Callable[[int], int], most: int) -> int:
    """Where the last word ends up to which a text has at most `most` tokens; 0 where none does. Args: tokens: up to a place in the text."""
    ends = [found.end() for found in _WORD.finditer(text, 0, max(1, most) * _LONGEST)]
    words = _most(len(ends), most, lambda words: tokens(ends[words - 1]))
    return ends[words - 1] if words else 0


def ending(text: str, most: int, count: Count) -> str:
    """The end of a text in at most `most` tokens, from the beginning of a sentence on where one is near; the whole text where it fits."""
    at = max(0, len(text) - max(1, most) * _LONGEST)
    starts = [found.start() for found in _WORD.finditer(text, at)]
    words = _most(len(starts), most, lambda words: count(text[starts[-words] :]))
    if not words:
        return ""
    if words == len(starts) and at == 0:
        return text
    end = text[starts[-words] :]
    sentence = _SENTENCE.search(end, 0, int(len(end) * _GIVEN_UP))
    return end[sentence.end() :] if sentence else end


def _most(whole: int, most: int, tokens: Callable[[int], int]) -> int:
    """The most words, of `whole`, that have at most `most` tokens. Args: tokens: of so many words, which more words never lower."""
    low, high = 0, whole + 1  # the most known to fit, the fewest known not to
    guess = min(whole, max(0, most))
    for attempt in range(_TRIES + whole.bit_length()):
        if high - low <= 1:
            break
        guess = max(low + 1, min(high - 1, guess))
        if (found := tokens(guess)) <= most:
            low = guess
        else:
            high = guess
        # What is even is found at once; what is not, by halves.
        guess = int(guess * most / max(1, found)) if attempt < _TRIES else (low + high) // 2
    return low
