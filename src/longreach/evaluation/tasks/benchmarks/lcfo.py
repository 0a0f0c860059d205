"""LCFO: summaries of a fifth, a tenth and a twentieth of a document, and a summary written out to a document again.

Paper: LCFO: Long Context and Long Form Output Dataset and Benchmarking, 2024, arXiv:2412.08268
Cost: one pass over each passage, and as many written words as are asked for (of an expansion several times those of the passage).
Limits: whether a text reads well is not marked; with a file that has references a judge can be asked (--judge).
Differs from the paper: only its abstract was at hand. Without a file a document is real text with key findings in it, and coverage is the
share of those that the answer has; with one it is the share of the questions whose answer it has.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from longreach.core.errors import InputError, SpecError
from longreach.core.method import MethodInfo
from longreach.evaluation.asking.items import numerals, spread
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.records import Datum, Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.words import word_pairs
from longreach.evaluation.scoring.words import normalized, rouge_l
from longreach.evaluation.text_task import Ability, TextTask

Wanted = Literal["summary", "expansion"]

SHARES = (20, 10, 5)
_FACTS = 5
_SPARE = 1.3  # tokens of an answer for one of the text that it should be as long as
_COUNTED = 1.25  # of the wanted length is looked at for what the answer covers
_AROUND_FACTS = 1.2  # words of the shortest summary for one of the key findings
_MOST_WORDS = 10_000_000


@dataclass(frozen=True, kw_only=True)
class LCFO(TextTask):
    """Args: task: shorten a document, or write one from a summary. share: percent of its words that the summary has (20, 10 or 5).
    file: JSON Lines of `document`, `summaries` (percent -> text) and `questions` (a list of `question` and `answer`); default: real text.
    """

    info: ClassVar = MethodInfo(title="LCFO: Long Context and Long Form Output Dataset and Benchmarking", paper="arXiv:2412.08268")
    ability: ClassVar[Ability] = "aggregation"
    metric: ClassVar[str] = "coverage"
    free: ClassVar[bool] = True
    task: Wanted = "summary"
    share: int = 20
    file: Records | None = None

    def __post_init__(self) -> None:
        if self.share not in SHARES:
            raise SpecError(f"{self.name()}: share={self.share} must be {', '.join(map(str, SHARES[:-1]))} or {SHARES[-1]}")

    @property
    def sized(self) -> bool:
        """Documents of a file have lengths of their own."""
        return self.file is None

    def available(self) -> int | None:
        """Documents of the file."""
        return None if self.file is None else len(self.file.all())

    @property
    def ratio(self) -> float:
        """Words of the answer for one of the passage."""
        return self.share / 100 if self.task == "summary" else 100 / self.share

    def passage(self, space: Space) -> Passage:
        """Real text with key findings, or a document or summary of the file. Raises: InputError for what is not in that format."""
        if self.file is not None:
            return self._of_file(space, self.file.all())
        rng = space.rng()
        findings = dict(zip(word_pairs(rng, _FACTS), numerals(rng, _FACTS, 4), strict=True))
        pieces = [(depth, f"\n{_finding(*one)}\n") for depth, one in zip(spread(_FACTS, rng), findings.items(), strict=True)]
        asks = (self._ask(space, _MOST_WORDS, findings),)
        self._check_room(space, sum(space.count(piece) for _, piece in pieces), asks)
        text = space.filled(pieces, asks)
        wanted = max(1, round(len(text.split()) * self.ratio))
        right = " ".join(_finding(*one) for one in findings.items()).split()
        right += (text.split() * math.ceil(self.ratio))[: max(0, wanted - len(right))]
        ask = replace(
            asks[0], text=self._words(wanted, findings=True), right=" ".join(right), evidence=tuple(piece.strip() for _, piece in pieces)
        )
        return Passage(text=text, asks=(replace(ask, expected={**ask.expected, "words": wanted}),))

    def metrics(self, ask: Ask) -> tuple[str, ...]:
        """What the answer covers, how near it is to the wanted length, and, where there is a reference, ROUGE-L."""
        return ("coverage", "length", *(("rouge_l",) if ask.expected["reference"] else ()))

    def mark(self, ask: Ask, written: str) -> float:
        """The share of key findings or answers that the answer has within about the wanted length."""
        known = ask.expected
        said = " ".join(written.split(" ")[: math.ceil(_COUNTED * known["words"])])
        if known["findings"]:
            return sum(_says(said, *one) for one in known["findings"].items()) / len(known["findings"])
        return sum(f" {normalized(one)} " in f" {normalized(said)} " for one in known["answers"]) / max(1, len(known["answers"]))

    def marks(self, ask: Ask, written: str) -> tuple[float, ...]:
        """All of them."""
        reference = ask.expected["reference"]
        return (
            self.mark(ask, written),
            nearness(len(written.split()), ask.expected["words"]),
            *([rouge_l(written, reference)] if reference else []),
        )

    def _ask(self, space: Space, words: int, findings: dict[str, str]) -> Ask:
        """With room for an answer that is so much longer or shorter than the passage."""
        ask = Ask(text=self._words(words, findings=True), right="", most_tokens=1, until=())
        each = space.around((replace(ask, most_tokens=2),)) - space.around((ask,))  # units of a token
        of_answer = _SPARE * self.ratio / (1 + _SPARE * self.ratio)
        expected = {"words": words, "findings": findings, "answers": [], "reference": ""}
        return replace(ask, most_tokens=max(1, int(space.length * of_answer / each)), expected=expected)

    def _check_room(self, space: Space, fixed: int, asks: Sequence[Ask]) -> None:
        """Raises: NoRoom where the passage would be less than half real text, or its summary not hold the findings."""
        around = space.around((replace(asks[0], most_tokens=1),))
        passage = max(2.1, _AROUND_FACTS / self.ratio if self.task == "summary" else 0) * fixed
        least = math.ceil((around + passage) * (1 + _SPARE * self.ratio)) + 8
        if space.length < least:
            space.too_short(least)

    def _words(self, words: int, *, findings: bool) -> str:
        keep = " with all key findings and their numbers" if findings else ""
        if self.task == "summary":
            return f"Summarize the document in about {words} words{keep}."
        return f"This was a summary. Write the document that it may have been made of, in about {words} words{keep}."

    def _of_file(self, space: Space, records: Sequence[Datum]) -> Passage:
        record = records[space.drawn(len(records))]
        document, summary, answers = _read(record, self.share)
        short = self.task == "expansion"
        if short and not summary:
            raise InputError(f"{record.place} has no summary of {self.share} percent to be written out")
        text, reference = (summary, document) if short else (document, summary)
        wanted = max(1, round(len(text.split()) * self.ratio))
        expected = {"words": wanted, "findings": {}, "answers": answers, "reference": reference}
        ask = Ask(
            text=self._words(wanted, findings=False), right=reference or ". ".join(answers), most_tokens=1, until=(), expected=expected
        )
        each = space.around((replace(ask, most_tokens=2),)) - space.around((ask,))
        tokens = math.ceil(_SPARE * self.ratio * space.count(text) / each)
        ask = replace(ask, most_tokens=max(1, tokens), free=bool(reference))
        fitted, cut = space.fitted(text, (ask,), lambda part: part)
        return Passage(text=fitted, asks=(ask,), cut=cut)


def nearness(words: int, wanted: int) -> float:
    """1 for the wanted number of words, 0.5 for half or twice as many.

    >>> nearness(50, 100), nearness(200, 100), nearness(0, 100)
    (0.5, 0.5, 0.0)
    """
    return min(words, wanted) / max(words, wanted)


def _finding(name: str, number: str) -> str:
    return f"Key finding: {name} counted {number}."


def _says(said: str, name: str, number: str) -> bool:
    """Whether the first number behind a name is its own."""
    found = re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])\D{{0,80}}?(\d+)", said.lower().replace(",", ""))
    return found is not None and found[1] == number


def _read(record: Datum, share: int) -> tuple[str, str, list[str]]:
    """Document, summary ("" where there is none) and answers. Raises: InputError."""
    values: Any = record.values
    summaries, questions = values.get("summaries", {}), values.get("questions", [])
    try:
        answers = [str(one["answer"]) for one in questions]
        summary = str(summaries.get(str(share), ""))
    except (AttributeError, KeyError, TypeError):
        raise InputError(f"{record.place}: summaries are an object, and questions a list of objects with question and answer") from None
    if not isinstance(values.get("document"), str) or not (summary or answers):
        raise InputError(f"{record.place} needs a document, and a summary of {share} percent or questions")
    return values["document"], summary, answers


METHOD = LCFO
EXAMPLES = (LCFO(), LCFO(share=10), LCFO(task="expansion"))
BAD = ({"share": 50}, {"task": "both"}, {"file": "nowhere.jsonl"})
