"""Log parsing: the templates behind the messages of a log, all of them at once or that of one message.

Paper: A Large-Scale Evaluation for Log Parsing Techniques: How Far Are We?, 2023, arXiv:2308.10828
Cost: one pass over each passage, and up to 30 written tokens for each template.
Limits: made logs have a few of 24 templates; which of several templates is a matter of taste in real logs, and has to be hit exactly.
Differs from the paper: a model reads the log and writes templates, by which its messages are then grouped: each belongs to the template
that fits it, and to none where none fits; the number of templates is said; of a file, only messages of so many templates are taken.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from longreach.core.errors import InputError, SpecError
from longreach.core.method import MethodInfo, at_least
from longreach.evaluation.asking.items import Drawn
from longreach.evaluation.asking.marks import answered
from longreach.evaluation.asking.passage import Ask, Passage
from longreach.evaluation.asking.space import Space
from longreach.evaluation.tasks.aggregation._logs import ANY, TEMPLATES, Message, made, of_file, parsed, scores
from longreach.evaluation.text_task import Ability, TextTask

Score = Literal["ga", "fga", "pa", "fta"]

_HEAD = "Below is a log, with one message in each line.\n\n"
_EACH = 30  # tokens of a template at most
_LISTED = re.compile(r"^\s*(?:[-*\u2022]\s+|\(?\d{1,3}[.):]\s+)?")  # what stands before an item of a list
_WITH = f"with {ANY} in place of every part that varies"


@dataclass(frozen=True, kw_only=True)
class LogTemplates(TextTask):
    """Args: form: what is asked for: all templates as a `list`, or that of one `line`, with all of them as candidates. templates: in each
    log (2 to 24 of made logs). by: how a list is scored: grouping accuracy (`ga`), its F1 over templates (`fga`), parsing accuracy (`pa`)
    or its F1 over templates (`fta`). questions: lines that are asked for (1 to templates). file: a structured log of Loghub (CSV with
    `Content` and `EventTemplate`; default: made logs).
    """

    info: ClassVar = MethodInfo(title="A Large-Scale Evaluation for Log Parsing Techniques: How Far Are We?", paper="arXiv:2308.10828")
    ability: ClassVar[Ability] = "aggregation"
    needs_text: ClassVar[bool] = False
    form: Literal["list", "line"] = "list"
    templates: int = 6
    by: Score = "fga"
    questions: int = 4
    file: Path | None = None

    def __post_init__(self) -> None:
        at_least(self, 2, "templates")
        at_least(self, 1, "questions")
        for setting, form in (("by", "list"), ("questions", "line")):
            if self.form != form and getattr(self, setting) != getattr(LogTemplates, setting):
                raise SpecError(f"{self.name()}: {setting}={getattr(self, setting)} has no effect on form={self.form}")
        if self.form == "line" and self.questions > self.templates:
            raise SpecError(f"{self.name()}: questions={self.questions} must be at most templates={self.templates}")
        if self.file is None and self.templates > len(TEMPLATES):
            raise SpecError(f"{self.name()}: templates={self.templates} must be at most {len(TEMPLATES)}")
        if self.file is not None and not self.file.exists():
            raise SpecError(f"{self.name()}: file={self.file} does not exist")
        object.__setattr__(self, "metric", self.by if self.form == "list" else "pa")

    def passage(self, space: Space) -> Passage:
        """A log as long as there is room for, in whose first lines all templates stand."""
        rng = space.rng()
        lines, least = self._of_file(self.file, rng) if self.file else self._made(rng)
        first = lines.first(least)
        templates = sorted({line.template for line in first})
        templates = [templates[place] for place in space.rng("order").permutation(len(templates))]
        asks = self._list(templates) if self.form == "list" else self._lines(first, templates)

        def text(count: int) -> str:
            return _HEAD + "\n".join(line.content for line in lines.first(count))

        count = space.listed(text, asks, least=least)
        shown = lines.first(count)
        if len(shown) < count:
            raise InputError(
                f"{self.file} has only {len(shown)} messages of {self.templates} templates, which do not fill {space.length} "
                f"{space.units.name}; choose shorter lengths, or more templates"
            )
        return Passage(text=text(count), asks=tuple(replace(ask, expected=tuple(shown)) for ask in asks))

    def mark(self, ask: Ask, written: str) -> float:
        """The score of the log as the written templates parse it; of a line, whether its template is written."""
        said = [one for line in answered(ask, written).strip().splitlines() if (one := _bare(line))]
        if self.form == "line":
            return float(said[:1] == [ask.right])
        score: float = getattr(scores(ask.expected, parsed(ask.expected, said)), self.by)
        return score

    def _list(self, templates: Sequence[str]) -> tuple[Ask, ...]:
        return (
            Ask(
                text=f"The messages of the log above have {len(templates)} templates. Write each of them in a line, {_WITH}.",
                opening="Templates:", right="\n".join(templates), most_tokens=_EACH * len(templates), until=("\n\n",),
            ),
        )  # fmt: skip

    def _lines(self, first: Sequence[Message], templates: Sequence[str]) -> tuple[Ask, ...]:
        of = {line.template: line.content for line in reversed(first)}
        return tuple(
            Ask(
                text=f"What is the template of this message of the log above? Write it in one line, {_WITH}.\n{of[template]}",
                opening="Template:", right=template, choices=tuple(templates), most_tokens=_EACH,
            )
            for template in templates[: self.questions]
        )  # fmt: skip

    def _made(self, rng: np.random.Generator) -> "tuple[Drawn[Message], int]":
        """Each template twice with no part the same, and then as it comes, some far more often than others."""
        patterns = [TEMPLATES[place] for place in rng.permutation(len(TEMPLATES))[: self.templates]]
        weights = 1 / np.arange(1, len(patterns) + 1)
        begun = [line for pattern in patterns for line in _varied(pattern, rng)]
        start = iter([begun[place] for place in rng.permutation(len(begun))])

        def draw() -> Message:
            return next(start, None) or made(patterns[int(rng.choice(len(patterns), p=weights / weights.sum()))], rng)

        return Drawn(draw), len(begun)

    def _of_file(self, file: Path, rng: np.random.Generator) -> "tuple[_Read, int]":
        """From a random line on, the messages of the first templates."""
        whole = of_file(file)
        start = int(rng.integers(len(whole)))
        known: dict[str, None] = {}
        kept = _Read()
        least = 0
        for line in (*whole[start:], *whole[:start]):
            if line.template not in known and len(known) < self.templates:
                known[line.template] = None
                least = len(kept.lines) + 1
            if line.template in known:
                kept.lines.append(line)
        if len(known) < self.templates:
            raise InputError(f"{file} has {len(known)} templates, and {self.templates} are asked for; choose fewer templates")
        return kept, least


class _Read:
    """Messages of a file."""

    def __init__(self) -> None:
        self.lines: list[Message] = []

    def first(self, count: int) -> list[Message]:
        """So many, or all."""
        return self.lines[:count]


def _varied(pattern: str, rng: np.random.Generator) -> Iterator[Message]:
    """Two messages of a pattern that differ wherever they can."""
    one = made(pattern, rng)
    varies = [ANY in word for word in one.template.split()]
    while True:
        other = made(pattern, rng)
        words = zip(varies, one.content.split(), other.content.split(), strict=True)
        if all(first != second for differs, first, second in words if differs):
            return iter((one, other))


def _bare(line: str) -> str:
    """A template without the marks of a list or of code around it."""
    return " ".join(_LISTED.sub("", line).strip().strip("`\"'").split())


METHOD = LogTemplates
EXAMPLES = (
    LogTemplates(),
    LogTemplates(by="ga", templates=4),
    LogTemplates(by="pa"),
    LogTemplates(by="fta"),
    LogTemplates(form="line"),
)
BAD = (
    {"templates": 1}, {"templates": 25}, {"by": "f1"}, {"form": "group"}, {"questions": 0}, {"questions": 3}, {"file": "no/such.csv"},
    {"form": "line", "by": "ga"}, {"form": "line", "questions": 7},
)  # fmt: skip
