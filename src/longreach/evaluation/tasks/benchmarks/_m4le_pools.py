"""Short texts that M4LE makes long ones of: labelled ones or ones with a question from a file, or paragraphs of real text."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

from longreach.core.errors import InputError
from longreach.evaluation.asking.records import Datum, digest

_SIZES = range(200, 801)  # characters of a paragraph of real text
_RARE = range(3, 7)  # paragraphs in which a word is that can be asked for
_WORD = re.compile(r"\b[a-z]{6,}\b")


class Short(NamedTuple):
    """A short text. Args: label: "" where it has none. question, answers: about it, if it has some."""

    text: str
    label: str = ""
    question: str = ""
    answers: tuple[str, ...] = ()


class Paragraphs:
    """Paragraphs of real text, in their order. Raises: InputError where they are fewer than 50."""

    def __init__(self, text: str) -> None:
        whole = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
        self.texts = tuple(dict.fromkeys(part for part in whole if len(part) in _SIZES))
        if len(self.texts) < 50:
            raise InputError(
                f"the text is too short: it has {len(self.texts)} paragraphs of {_SIZES.start} to {_SIZES[-1]} characters; give 50 or more"
            )

    @cached_property
    def rare(self) -> Mapping[str, Sequence[int]]:
        """Words that are in a few paragraphs, and in which."""
        found: dict[str, list[int]] = defaultdict(list)
        for number, text in enumerate(self.texts):
            for word in sorted(set(_WORD.findall(text.lower()))):
                found[word].append(number)
        return {word: of for word, of in found.items() if len(of) in _RARE}


@lru_cache(maxsize=2)
def paragraphs(text: str) -> Paragraphs:
    """Those of a text."""
    return Paragraphs(text)


class Pool:
    """The texts of a file. Raises: InputError where they have neither labels nor questions."""

    def __init__(self, records: Sequence[Datum]) -> None:
        self.texts = tuple(_short(record) for record in records)
        self.labels = tuple(sorted({one.label for one in self.texts if one.label}))
        self.digest = digest([one._asdict() for one in self.texts])
        self.asks = any(one.question for one in self.texts)
        if not self.asks and len(self.labels) < 2:
            raise InputError(f"{records[0].place if records else 'the file'}: texts need two labels at least, or questions")

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Texts of each label."""
        return Counter(one.label for one in self.texts)


def _short(record: Datum) -> Short:
    """Raises: InputError for what is neither."""
    values: Mapping[str, Any] = record.values
    if isinstance(values.get("text"), str) and isinstance(values.get("label"), (str, int)):
        return Short(" ".join(values["text"].split()), label=str(values["label"]).strip())
    answers = values.get("answers", values.get("answer"))
    answers = [answers] if isinstance(answers, str) else answers
    if isinstance(values.get("context"), str) and isinstance(values.get("question"), str) and isinstance(answers, list) and answers:
        return Short(" ".join(values["context"].split()), question=values["question"].strip(), answers=tuple(map(str, answers)))
    raise InputError(f"{record.place} has neither text and label, nor context, question and answer")
