"""How L-Eval marks answers, rule by rule as its own program does, also where a rule is odd: published answers get the published marks."""

import re
from itertools import takewhile

from longreach.evaluation.scoring.words import rouge_l, rouge_n, without_articles

ONE_OPTION, OPTIONS = ("quality", "tpo"), ("coursera", "quality", "tpo")
PART = 0.25  # for some of several right options, and no wrong one
ROUGE = ("rouge_l", "rouge_1", "rouge_2")

_LETTERS = "ABCD"
_SAID_BEFORE_RESULTS = ("will be", "of the code", "is", "would be", "the value of", "the result of", "printed")


def closed(dataset: str, written: str, right: str) -> float:
    """The mark of an answer that is right or wrong. Args: right: as the file has it."""
    if dataset in OPTIONS:
        return exact(options_said(written, several=dataset not in ONE_OPTION), right_options(right))
    if dataset.startswith("gsm"):
        return exact(whole_number(written), whole_number(right))
    if dataset.startswith("codeU"):
        return exact(_result_said(written, right), _plain_result(right))
    if dataset.startswith("sci_fi"):
        return exact(truth_said(written), right.lower())
    return exact(written, right)


def rouge(written: str, right: str) -> tuple[float, ...]:
    """Its ROUGE scores, in the order of `ROUGE`."""
    return rouge_l(written, right), rouge_n(written, right, 1), rouge_n(written, right, 2)


def exact(written: str, right: str) -> float:
    """Options have to be the same; numbers equal; other answers hold the right one, spaces and case left out."""
    wanted = without_articles(right)
    if all(sign in _LETTERS for sign in wanted):
        said = without_articles(written)
        return 1.0 if said == wanted else PART if set(said) <= set(wanted) else 0.0
    try:
        return float(float(written) == float(right))
    except ValueError:
        return float(right.lower().replace(" ", "") in written.lower().replace(" ", ""))


def options_said(written: str, *, several: bool) -> str:
    """The letters of the options that an answer chooses; where it names none, the first one."""
    if not written.strip():
        return "None"
    if written in _LETTERS:
        return written
    if not several and (first := next((sign for sign in written if sign in _LETTERS), "")):
        return first
    begins = "".join(takewhile(lambda sign: sign in _LETTERS, written))
    if len(begins) > 1:
        return "".join(sorted(set(begins)))
    rest = written[len(begins) :].partition("Question")[0]
    listed = {*begins, *"".join(re.findall(r"[A-Z](?=[\s.)])", rest))} & set(_LETTERS)
    run = re.search(f"[{_LETTERS}]+", rest)
    return "".join(sorted(listed)) or (run[0] if run else _LETTERS[0])


def right_options(right: str) -> str:
    """The letters that the first word of the right answer has."""
    return re.sub(f"[^{_LETTERS}]", "", right.split()[0]) or _LETTERS[0]


def whole_number(written: str) -> str:
    """The digits before a point of what "The answer is" names, or else of the last word with a digit in the first paragraph."""
    named = re.search(r"The answer is (\S+)", written)
    last_first = reversed(written.split("\n\n")[0].split(" "))
    word = named[1] if named else next((word for word in last_first if any(map(str.isdigit, word))), "")
    return "".join(filter(str.isdigit, word.partition(".")[0]))


def truth_said(written: str) -> str:
    """`true` or `false`, whichever a word of the answer has first."""
    for word in written.lower().split():
        for truth in ("true", "false"):
            if truth in word:
                return truth
    return "<error>"


def loyal_and_factual(right: str) -> tuple[str, str]:
    """What is true in a story, and what in the world: `True [fact: False]`."""
    loyal, _, fact = right.partition("[fact:")
    return loyal.strip(), fact.strip().removesuffix("]").strip()


def _plain_result(text: str) -> str:
    """What a program prints, without what prints differ in."""
    text = re.sub(r"\s+", " ", text)
    for said, plain in ((",", ""), ("'", ""), ("\\", ""), (".0", ""), ("] [", "]["), ("[ [", "[["), ("] ]", "]]")):
        text = text.replace(said, plain)
    return text


def _result_said(written: str, right: str) -> str:
    """The words in which an answer gives the result: a few more than the right one has, behind "the final output" or at the end."""
    text, many = _plain_result(written), len(right.split()) + 3
    for said in _SAID_BEFORE_RESULTS:
        text = text.replace(said, "")
    _, found, after = text.rpartition("the final output")
    return " ".join(re.split(r"\s+", after)[:many] if found else re.split(r"\s+", text)[-many:])
