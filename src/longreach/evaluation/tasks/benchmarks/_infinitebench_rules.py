"""How InfiniteBench marks answers, rule by rule as its own program does, odd rules too: published answers get the published marks."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from longreach.evaluation.scoring.words import best, characters, rouge_l_sum, token_f1, word_f1

_LETTERS = "ABCD"
_BEFORE_CHOICE = ("answer is:", "answer:", "answer is", "option is")
_BEFORE_FUNCTION = ("answer is:", "is:", "answer:", "correct option is:")


def mark(part: str, written: str, answer: Any) -> float:
    """The mark of an answer, from 0 to 1. Args: part: of the benchmark. answer: as `answer_of` gives it."""
    return float(_RULES[part](written, answer))


def answer_of(part: str, values: Mapping[str, Any]) -> Any:
    """The right answer of a record, in the form that its rule takes. Raises: ValueError for what is none."""
    answer = values["answer"]
    if part in ("code_debug", "longbook_choice_eng"):
        options, given = list(values["options"]), [answer] if isinstance(answer, str) else list(answer)
        return [given[0], _LETTERS[options.index(given[0])]] if len(given) == 1 else given
    if part in ("longbook_qa_eng", "longbook_qa_chn", "longbook_sum_eng", "longdialogue_qa_eng"):
        return [answer] if isinstance(answer, str) else [str(one) for one in answer]
    if part == "math_calc":
        return [int(one) for one in (answer[0] if isinstance(answer[0], list) else answer)]
    first = answer[0] if isinstance(answer, list) else answer
    return str(first) if part in ("passkey", "number_string", "kv_retrieval") else float(first)


def without(signs: str | Sequence[str], text: str) -> str:
    """The text with each of the signs made a space."""
    for sign in signs:
        text = text.replace(sign, " ")
    return text


def _first_number(written: str, answer: str) -> bool:
    found = re.search(r"[0-9]+", written)
    return found is not None and found[0] == answer


def _last_word_is(written: str, answer: float) -> bool:
    words = without("\n.`'\":", written).split()
    try:
        return bool(words) and int(words[-1]) == answer
    except ValueError:
        return False


def _names_function(written: str, answer: Sequence[str]) -> bool:
    name, letter = answer
    text = written.strip()
    if text[:2] in (f"{letter}.", f"{letter}:"):
        return True
    text = re.sub(" +", " ", without(("\n", "`", "'", '"', "-", "*", "Option", "option"), text))
    for before in _BEFORE_FUNCTION:
        if (place := text.find(before)) >= 0:
            return text[place + len(before) + 1 :].startswith((letter, name))
    return False


def _first_is(written: str, answer: float) -> bool:
    found = re.search(r"\d+\.\d+|\d+", written)
    return found is not None and float(found[0]) == answer


def _names_somebody(written: str, answer: Sequence[str]) -> bool:
    return answer[0] in without("\n:\"'.,?!{}", written.strip()).upper().split()


def _chooses(written: str, answer: Sequence[str]) -> bool:
    text = written.strip()
    if not text:
        return False
    if text[0] in _LETTERS:
        return text[0] in answer
    if text in answer:
        return True
    text = re.sub(" +", " ", without("\n\"'.,?!{}", text))
    for before in _BEFORE_CHOICE:
        if (place := text.find(before)) >= 0:
            return text[place + len(before) + 1 :].startswith(tuple(answer)) and len(text) > place + len(before)
    return next((word in answer for word in text.split() if word in _LETTERS), False)


def _begins(written: str, answer: Sequence[int]) -> float:
    """The share of the values that come before the first wrong one."""
    right = 0
    for said, wanted in zip(re.findall(r"[0-9]+", written), answer, strict=False):
        if said.lstrip("0") != (str(wanted) if wanted else ""):
            break
        right += 1
    return right / len(answer)


_RULES: dict[str, Callable[[str, Any], float]] = {
    "passkey": _first_number,
    "number_string": _first_number,
    "kv_retrieval": lambda written, answer: answer in without("\n:\"'.,?!{}", written).split(),
    "longdialogue_qa_eng": _names_somebody,
    "longbook_sum_eng": lambda written, answer: best(rouge_l_sum(written, one) for one in answer),
    "longbook_choice_eng": _chooses,
    "longbook_qa_eng": lambda written, answer: best(word_f1(written, one) for one in answer),
    "longbook_qa_chn": lambda written, answer: best(token_f1(characters(written), characters(one)) for one in answer),
    "math_find": _first_is,
    "math_calc": _begins,
    "code_run": _last_word_is,
    "code_debug": _names_function,
}
PARTS = tuple(_RULES)
