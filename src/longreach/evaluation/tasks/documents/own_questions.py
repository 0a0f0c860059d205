"""Own questions: documents and questions of the user's, as long as they are, or set among real text at any length.

Paper: SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016, arXiv:1606.05250
Cost: one reading of each document for all its questions, and up to `answer_tokens` written tokens for each.
Limits: `contains` is fooled by an answer that names everything, and by a model that knows the answer without the document. Programs are run
on this machine, within limits that are meant for mistakes and not for attackers.
Differs from the paper: documents, questions and answers are the user's own; beside exact match and the F1 of words, which are the paper's,
an answer can be marked by whether it contains the right one, by ROUGE, by its choices, or by tests that a program has to pass; a document
can be set among other text.
"""

import os
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, NamedTuple

from longreach.core.errors import InputError, UnsupportedError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.marks import choice_said
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.records import Datum, Records
from longreach.evaluation.asking.space import DEPTHS, Space
from longreach.evaluation.scoring.running import run_program
from longreach.evaluation.scoring.words import best, normalized, rouge_l, rouge_n, same, word_f1
from longreach.evaluation.tasks.documents._own_sample import SAMPLE
from longreach.evaluation.text_task import Ability, TextTask

OwnScoring = Literal["contains", "exact", "f1", "rouge", "code"]

_HEAD = "This is a document. What is asked of you stands at its end.\n\n"
_AMONG = "This is a long text with a document in it. What is asked of you stands at its end.\n\n"
_TELL = {
    "exact": "Answer with as few words as you can.",
    "f1": "Answer with as few words as you can.",
    "code": "Write only the program, in Python.",
}
_METRICS: dict[str, tuple[str, ...]] = {"f1": ("f1", "exact"), "rouge": ("rouge_l", "rouge_1", "rouge_2")}
_FENCED = re.compile(r"```[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_KEYS = "`text`, `question` and `answer`"


class _Document(NamedTuple):
    """A text, and the lines that ask about it."""

    text: str
    lines: tuple[Datum, ...]


@dataclass(frozen=True, kw_only=True)
class OwnQuestions(TextTask):
    """Args: file: JSON Lines of `text`, `question` and `answer` (or `answers`, any of which is right), or a folder with some; lines with
    the same text are one document. `choices` offers answers, and `tests` is a Python program that ends without an error where it stands
    behind a right one, for scoring=code. (Default: a few short documents of our own.) scoring: of an answer: whether it `contains` the
    right one, is it (`exact`), the `f1` of its words, `rouge`, or whether its `code` passes the tests. fill: set each document among real
    text, at depths that take turns, so that it is as long as is asked for; otherwise it is as long as it is. answer_tokens: of an answer
    (>= 1).
    """

    info: ClassVar = MethodInfo(title="SQuAD: 100,000+ Questions for Machine Comprehension of Text", paper="arXiv:1606.05250")
    ability: ClassVar[Ability] = "latent"
    free: ClassVar[bool] = True
    file: Records | None = None
    scoring: OwnScoring = "contains"
    fill: bool = False
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        at_least(self, 1, "answer_tokens")
        if self.scoring == "code" and os.name != "posix":
            raise UnsupportedError(self.spec, "Windows", "there are no limits for processes", "run the evaluation on Linux")

    @property
    def sized(self) -> bool:
        """Where documents are filled up."""
        return self.fill

    def available(self) -> int:
        """Documents. Raises: InputError for lines that are no questions."""
        return len(self._documents())

    def passage(self, space: Space) -> Passage:
        """A document and all its questions."""
        documents = self._documents()
        document = documents[space.drawn(len(documents))]
        depth = DEPTHS[space.number % len(DEPTHS)] if self.fill else None
        asks = tuple(self._ask(line, document.text, depth) for line in document.lines)
        if depth is not None:
            text = space.filled([(depth, f"\n\n{document.text}\n\n")], asks, before=_AMONG, least=0.0)
            return Passage(text=text, asks=asks)
        text, cut = space.fitted(document.text, asks, lambda part: f"{_HEAD}{part}")
        return Passage(text=text, asks=asks, cut=cut)

    def metrics(self, ask: Ask) -> tuple[str, ...]:
        """One for choices, however other questions are scored."""
        return ("accuracy",) if ask.choices else _METRICS.get(self.scoring, (self.scoring,))

    def marks(self, ask: Ask, written: str) -> tuple[float, ...]:
        """By the right answer that is nearest."""
        if ask.choices:
            return (choice_said(ask, written),)
        if self.scoring == "code":
            return (_passes(_program(written), ask.expected["tests"]),)
        right = ask.expected["answers"]
        if self.scoring == "f1":
            return tuple(best(mark(written, answer) for answer in right) for mark in (word_f1, same))
        if self.scoring == "rouge":
            by_runs = tuple(best(rouge_n(written, answer, n) for answer in right) for n in (1, 2))
            return (best(rouge_l(written, answer) for answer in right), *by_runs)
        return (best(float((same if self.scoring == "exact" else _contains)(written, answer)) for answer in right),)

    def mark(self, ask: Ask, written: str) -> float:
        """The first of them."""
        return self.marks(ask, written)[0]

    def _ask(self, line: Datum, text: str, depth: float | None) -> Ask:
        values = line.values
        choices, answers = tuple(values.get("choices") or ()), _answers(values)
        question = values["question"]
        if choices and not all(choice in question for choice in choices):
            question += f"\nChoose one of these: {'; '.join(choices)}."
        elif not choices and self.scoring in _TELL:
            question += f"\n{_TELL[self.scoring]}"
        short = bool(choices) or self.scoring in ("contains", "exact")
        return Ask(
            text=question, right=answers[0], choices=choices, most_tokens=self.answer_tokens, until=("\n",) if short else (), depth=depth,
            evidence=() if depth is None else (text,), free=not choices and self.scoring != "code",
            expected={"answers": answers, "tests": values.get("tests")},
        )  # fmt: skip

    def _documents(self) -> tuple[_Document, ...]:
        lines = SAMPLE[self.scoring == "code"] if self.file is None else self.file.all()
        texts: dict[str, list[Datum]] = {}
        for line in lines:
            _check(line, tests=self.scoring == "code")
            texts.setdefault(_text(line.values).strip(), []).append(line)
        if not texts:
            raise InputError(f"{self.spec}: {self.file} has no lines; each is to be a JSON object with {_KEYS}")
        return tuple(_Document(text, tuple(each)) for text, each in texts.items())


def _text(values: Any) -> Any:
    return values.get("text", values.get("context"))


def _answers(values: Any) -> tuple[str, ...]:
    found = values.get("answers", values.get("answer"))
    return (found,) if isinstance(found, str) else tuple(found or ())


def _check(line: Datum, *, tests: bool) -> None:
    """Raise InputError for a line that is no question."""
    values = line.values
    for name, value in (
        ("text", _text(values)),
        ("question", values.get("question")),
        *([("tests", values.get("tests"))] if tests else []),
    ):
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"{line.place} has no `{name}`; each line is to have {_KEYS}{', and `tests` for scoring=code' if tests else ''}"
            )
    answers = values.get("answers", values.get("answer"))
    many = [answers] if isinstance(answers, str) else answers
    if not (isinstance(many, list) and many and all(isinstance(one, str) and one.strip() for one in many)):
        raise InputError(f"{line.place} has no `answer`, which is a text, or a list `answers` of texts")
    choices = values.get("choices")
    if choices is None:
        return
    if not (isinstance(choices, list) and len(choices) > 1 and all(isinstance(one, str) and one.strip() for one in choices)):
        raise InputError(f"{line.place}: `choices` has to be a list of two texts or more")
    if many[0] not in choices:
        raise InputError(f"{line.place}: the answer {many[0]!r} is not among its choices")
    if len({one.lower() for one in choices}) < len(choices):
        raise InputError(f"{line.place}: two of its choices are the same")


def _contains(written: str, right: str) -> bool:
    """Whether the words of the right answer stand in it, in a row."""
    words = normalized(right)
    return f" {words} " in f" {normalized(written)} " if words else right.strip() in written


def _program(written: str) -> str:
    """The first block of code in an answer, or all of it."""
    fenced = _FENCED.search(written)
    return (fenced[1] if fenced else written).strip()


@cache
def _passes(program: str, tests: str) -> float:
    """1 where the tests, behind the program, end without an error."""
    return float(bool(program) and run_program(f"{program}\n\n{tests}\n").ended == "finished")


METHOD = OwnQuestions
EXAMPLES = (
    OwnQuestions(),
    OwnQuestions(fill=True),
    OwnQuestions(scoring="exact"),
    OwnQuestions(scoring="f1", fill=True),
    OwnQuestions(scoring="rouge"),
    OwnQuestions(scoring="code"),
)
BAD = ({"file": "nowhere.jsonl"}, {"scoring": "some"}, {"answer_tokens": 0})
