"""Lengths of texts in words: how many a text has, how many a task asks for, and how well the two agree, as LongBench-Write scores it."""

import re

_WORD = re.compile(r"[\u4e00-\u9fff]|[^\W\d_\u4e00-\u9fff]+")
_ASKED = re.compile(r"(?<![A-Za-z0-9.,])(\d[\d,.]*)\s*(k|thousand)?[\s-]*(?:words?\b|[字词])", re.IGNORECASE)
_TOO_LONG, _TOO_SHORT = 3, 2  # how gently the score falls: to 0 at four times what was asked, and at a third of it


def words_in(text: str) -> int:
    """Words of a text; of Chinese, characters. Numbers are none.

    English and Chinese are counted as LongBench-Write counts them, but for letters beside a digit or a Chinese character (3D), which it
    leaves out.

    >>> words_in("Don't count 12 of them: 长文")
    7
    """
    return len(_WORD.findall(text))


def words_asked(task: str) -> int | None:
    """How many words a task asks for: the largest number that stands before `words`; None where there is none.

    >>> words_asked("Write an essay of 2,000 words, with an abstract in 100 words."), words_asked("In 800-1000 words: why?")
    (2000, 1000)
    >>> words_asked("A 10k-word story"), words_asked("In a few words: why?")
    (10000, None)
    """
    return max((_number(found[1], bool(found[2])) for found in _ASKED.finditer(task)), default=0) or None


def longwriter_lengths(asked: int, written: int) -> float:
    """S_l of LongBench-Write (LongWriter, arXiv:2408.07055): 100 where a text is as long as it was asked to be.

    It falls evenly with the factor by which a text is too long or too short, to 0 at 4 and 3 times. Args: asked, written: words.

    >>> longwriter_lengths(1000, 1000), longwriter_lengths(1000, 2500), longwriter_lengths(1000, 500), longwriter_lengths(1000, 0)
    (100.0, 50.0, 50.0, 0.0)
    """
    if written == 0:
        return 0.0
    off = (written / asked - 1) / _TOO_LONG if written > asked else (asked / written - 1) / _TOO_SHORT
    return 100 * max(0.0, 1 - off)


def _number(digits: str, thousands: bool) -> int:
    digits = digits.rstrip(".,")
    if re.fullmatch(r"\d{1,3}(?:[,.]\d{3})+", digits):
        digits = re.sub(r"\D", "", digits)
    try:
        return int(float(digits.replace(",", "")) * (1000 if thousands else 1))
    except ValueError:  # 1.2.3
        return 0
