"""Asks a model or an endpoint all questions of some tasks at some lengths, and keeps a row for each answer."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.evaluation.asking.answerer import Answerer, likeliest
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.passage import Ask, Passage, Response
from longreach.evaluation.asking.space import Space
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.text_task import TextTask

LIKELIHOOD = "likelihood"
PASSAGES = 10  # of each task and length, where nobody says


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is asked. Args: tasks: by their specs different. lengths: in the answerer's units. passages: of each task and length. text: real
    text. row: what all rows have in common: model, method, version, and in its settings all else that determines a score."""

    tasks: Sequence[TextTask]
    lengths: Sequence[int]
    passages: int = PASSAGES
    seed: int = 0
    text: str | None = None
    row: Row

    def __post_init__(self) -> None:
        if not self.tasks or not self.lengths:
            raise InputError("nothing to evaluate: name a task and a length")
        if self.passages < 1:
            raise InputError(f"passages={self.passages} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What came of a course. Args: rows: measured now or found. impossible: (task, length) -> why there is no such passage."""

    rows: tuple[Row, ...]
    impossible: Mapping[tuple[str, int], str]

    @property
    def failed(self) -> tuple[Row, ...]:
        """Those that got no answer."""
        return tuple(row for row in self.rows if row.failed)


def take(answerer: Answerer, course: Course, rows: Rows, *, progress: Progress = SILENT) -> Examined:
    """Every question that is not among the rows is asked; rows are kept passage by passage, so that a stopped run goes on.

    Raises: NoRoom where no length holds a task; InputError for too little text; what the answerer raises.
    """
    filler = Filler(course.text, answerer.units) if course.text else None
    found: list[Row] = []
    impossible: dict[tuple[str, int], str] = {}
    for task in course.tasks:
        for length in course.lengths:
            progress.start(f"{task.name()} at {length}", length * course.passages)
            for number in range(course.passages):
                space = Space(task=task.spec, length=length, units=answerer.units, seed=course.seed, number=number, text=filler)
                try:
                    passage = task.passage(space)
                except NoRoom as error:
                    impossible[task.spec, length] = str(error)
                    break
                found += _answered(answerer, task, passage, _planned(course, task, space, passage, answerer), rows, progress)
        if all((task.spec, length) in impossible for length in course.lengths):
            raise NoRoom(impossible[task.spec, max(course.lengths)])
    return Examined(rows=tuple(found), impossible=impossible)


def _planned(course: Course, task: TextTask, space: Space, passage: Passage, answerer: Answerer) -> list[tuple[Row, ...]]:
    """For each question its rows, still without scores: by what is written, and by likelihood where there are choices."""
    text = passage.whole
    used = space.count(passage.text)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    planned = []
    for number, ask in enumerate(passage.asks):
        total = used + answerer.units.around(ask, passage.turns)
        if total > space.length:
            raise LongreachError(
                f"{task.spec}: question {number} makes a prompt of {total} {space.units.name}, and {space.length} are asked for"
            )
        settings = {
            **course.row.settings, **ask.about, "units": space.units.name, "input": digest, "passage": space.number, "question": number,
            "asked": hashlib.sha256(repr((ask.text, ask.opening, ask.choices, ask.most_tokens, ask.until)).encode()).hexdigest()[:8],
            "prompt": total - ask.most_tokens, "characters": len(text), "chance": round(task.chance(ask), 6),
        }  # fmt: skip
        row = replace(course.row, task=task.spec, length=space.length, depth=ask.depth, seed=course.seed)
        metrics = [task.metric, *([LIKELIHOOD] if ask.choices and answerer.chooses else [])]
        planned.append(tuple(replace(row, settings={**settings, "metric": metric, **_guessed(ask, metric)}) for metric in metrics))
    return planned


def _guessed(ask: Ask, metric: str) -> dict[str, float]:
    return {"chance": round(1 / len(ask.choices), 6)} if metric == LIKELIHOOD else {}


def _answered(
    answerer: Answerer, task: TextTask, passage: Passage, planned: Sequence[tuple[Row, ...]], rows: Rows, progress: Progress
) -> Iterator[Row]:
    """The rows of a passage: those that are known, and answers to the questions that are not."""
    known = [[rows.get(row) for row in wanted] for wanted in planned]
    missing = [number for number, found in enumerate(known) if any(row is None for row in found)]
    new: dict[int, list[Row]] = {}
    if missing:
        asked = replace(passage, asks=tuple(passage.asks[number] for number in missing))
        responses = answerer.answers(asked, progress=progress)
        for number, ask, response in zip(missing, asked.asks, responses, strict=True):
            new[number] = [_scored(row, task, ask, response) for row in planned[number]]
        rows.append([row for kept in new.values() for row in kept])
    for number, found in enumerate(known):
        yield from new.get(number, [row for row in found if row is not None])


def _scored(row: Row, task: TextTask, ask: Ask, response: Response) -> Row:
    speed = response.tokens / response.seconds if response.tokens and response.seconds else None
    row = replace(row, tokens_per_s=speed, answer=response.written)
    if response.failed:
        return replace(row, failed=response.failed)
    if row.settings["metric"] != LIKELIHOOD:
        return replace(row, score=float(task.mark(ask, response.written)))
    best = likeliest(response)
    return replace(
        row, score=float(best is not None and ask.choices[best] == ask.right), answer=None if best is None else ask.choices[best]
    )
