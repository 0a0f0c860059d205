"""Asks a model or an endpoint all questions of some tasks at some lengths, and keeps a row for each answer."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.endpoint.errors import EndpointError
from longreach.endpoint.ordered import in_order
from longreach.evaluation.asking.answerer import Answerer, likeliest
from longreach.evaluation.asking.cutting import Side
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.passage import Ask, Passage, Response
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Units
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.scoring.judge import Graded, Judge
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.text_task import TextTask
from longreach.evaluation.time_limit import TimeLimit

LIKELIHOOD, JUDGE = "likelihood", "judge"
PASSAGES = 10  # of each task and length, where nobody says

_Turn = tuple[TextTask, int, Sequence[int]]  # a task, a length, and the numbers of the passages that come next


@dataclass(frozen=True, kw_only=True)
class Course:
    """What is asked. Args: tasks: by their specs different. lengths: in the answerer's units. passages: of each task and length, or as
    many as there are. text: real text. truncate: where texts of a length of their own are cut that are too long (default: they are
    refused). judge: also marks answers in free words. row: what all rows have in common: model, method, version, and in its settings
    all else that determines a score. share: (k, n): of the passages every nth, from the kth on, where several processes share the work.
    Raises: InputError for nothing to ask."""

    tasks: Sequence[TextTask]
    lengths: Sequence[int]
    passages: int = PASSAGES
    seed: int = 0
    text: str | None = None
    truncate: Side | None = None
    judge: Judge | None = None
    row: Row
    share: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if not self.tasks or not self.lengths:
            raise InputError("nothing to evaluate: name a task and a length")
        if self.passages < 1:
            raise InputError(f"passages={self.passages} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What came of a course. Args: rows: measured now or found. impossible: (task, length) -> why there is no such passage. left_out:
    (task, length) -> passages that there was no time for."""

    rows: tuple[Row, ...]
    impossible: Mapping[tuple[str, int], str]
    left_out: Mapping[tuple[str, int], int] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Those that got no answer."""
        return tuple(row for row in self.rows if row.failed)


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A passage. Args: planned: for each question its rows, still without scores. known: those that were measured before."""

    task: TextTask
    passage: Passage
    planned: Sequence[tuple[Row, ...]]
    known: Sequence[tuple[Row | None, ...]]

    @property
    def cell(self) -> tuple[str, int]:
        """Its task and its length."""
        return self.task.spec, self.planned[0][0].length

    def unanswered(self) -> list[int]:
        """Numbers of the questions whose answers are not known."""
        return [number for number in range(len(self.known)) if self.answer(number) is None and self.missing(number)]

    def answer(self, number: int) -> str | None:
        """What was answered before, where only the judge has not said what it is worth."""
        written, rest = self.known[number][0], zip(self.planned[number], self.known[number], strict=True)
        judged = all(known is not None or _kind(row) == JUDGE for row, known in rest)
        return written.answer if written is not None and judged else None

    def missing(self, number: int) -> bool:
        """Whether a question has a row without a score."""
        return any(row is None for row in self.known[number])


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """What came of a passage. Args: responses, graded: number of a question -> its answer, and what the judge says of it."""

    job: _Job
    responses: Mapping[int, Response]
    graded: Mapping[int, Graded]


def take(
    answerer: Answerer, course: Course, rows: Rows, *, limit: TimeLimit | None = None, progress: Progress = SILENT
) -> Examined:  # fmt: skip
    """Every question that is not among the rows is asked; rows are kept passage by passage, so that a stopped run goes on.

    Args: limit: passages come in rounds, one of each task and length, shorter ones first, and those that do not fit are left out.
    Raises: NoRoom where no length holds any of the tasks; InputError for too little text; what the answerer raises.
    """
    found: list[Row] = []
    impossible: dict[tuple[str, int], str] = {}
    left_out: Counter[tuple[str, int]] = Counter()

    def answered(job: _Job) -> _Answered:
        responses: dict[int, Response] = {}
        if numbers := job.unanswered():
            asked = replace(job.passage, asks=tuple(job.passage.asks[number] for number in numbers))
            with nullcontext() if limit is None else limit.timed(*job.cell):
                responses = dict(zip(numbers, answerer.answers(asked, progress=progress), strict=True))
        for number in range(len(job.planned)):
            if number not in responses and job.missing(number):
                responses[number] = Response(written=job.answer(number) or "")
        return _Answered(job=job, responses=responses, graded=_graded(course.judge, job, responses))

    jobs = _jobs(answerer, course, rows, impossible, progress, rounds=limit is not None)
    if limit is not None:
        jobs = _in_time(jobs, limit, left_out, progress)
    done = map(answered, jobs) if answerer.at_once == 1 else in_order(answered, jobs, answerer.at_once)
    for outcome in done:
        if isinstance(outcome, EndpointError):  # answerers say in their responses what failed
            raise outcome
        found += _kept(outcome, rows)
    return Examined(rows=tuple(found), impossible=impossible, left_out=dict(left_out))


def _jobs(
    answerer: Answerer, course: Course, rows: Rows, impossible: dict[tuple[str, int], str], progress: Progress, *, rounds: bool
) -> Iterator[_Job]:  # fmt: skip
    """Every passage, made when its turn comes; lengths that hold a task not are noted in `impossible`."""
    filler = Filler(course.text, answerer.units) if course.text else None
    for task, length, numbers in _in_rounds(course) if rounds else _in_turn(course):
        if (task.spec, length) in impossible:
            continue
        more = f", passage {numbers[0] + 1}" if rounds and task.sized else ""
        progress.start(f"{task.name()} at {length}{more}", length * len(numbers))
        try:
            for space, passage in _passages(course, task, length, numbers, answerer.units, filler):
                planned = _planned(course, task, space, passage, answerer)
                known = [tuple(rows.get(row) for row in wanted) for wanted in planned]
                yield _Job(task=task, passage=passage, planned=planned, known=known)
        except NoRoom as error:
            impossible[task.spec, length] = str(error)
    if len(impossible) == len(course.tasks) * len(course.lengths):
        raise NoRoom(impossible[course.tasks[0].spec, max(course.lengths)])


def _in_turn(course: Course) -> Iterator[_Turn]:
    """All passages of a task at a length, then those of the next one."""
    for task in course.tasks:
        for length in course.lengths:
            yield task, length, _numbers(course, task)


def _in_rounds(course: Course) -> Iterator[_Turn]:
    """A passage of every task at every length, shorter ones first, then the next one of each; of texts of a file all in the first round."""
    for turn in range(max(len(_numbers(course, task)) for task in course.tasks)):
        for length in sorted(course.lengths):
            for task in course.tasks:
                numbers = _numbers(course, task)
                if task.sized and turn < len(numbers):
                    yield task, length, numbers[turn : turn + 1]
                elif not task.sized and not turn:
                    yield task, length, numbers


def _in_time(jobs: Iterator[_Job], limit: TimeLimit, left_out: Counter[tuple[str, int]], progress: Progress) -> Iterator[_Job]:
    """Those that are answered already, and those that there is time for; the others are counted."""
    for job in jobs:
        if job.unanswered() and not limit.fits(*job.cell):
            left_out[job.cell] += 1
            progress.advance(job.cell[1])
        else:
            yield job


def _numbers(course: Course, task: TextTask) -> range:
    """Of the passages of a task at each length."""
    there = task.available()
    return range(course.share[0], course.passages if there is None else min(there, course.passages), course.share[1])


def _passages(
    course: Course, task: TextTask, length: int, numbers: Sequence[int], units: Units, filler: Filler | None
) -> Iterator[tuple[Space, Passage]]:
    """Passages of a length; of texts of a length of their own all or none, so that no mean is one of the short ones alone.

    Raises: NoRoom.
    """
    spaces = (
        Space(
            task=task.spec, length=length, units=units, seed=course.seed, number=number, text=filler,
            truncate=None if task.sized else course.truncate,
        )
        for number in numbers
    )  # fmt: skip
    if task.sized:
        yield from ((space, task.passage(space)) for space in spaces)
        return
    made, refused = list[tuple[Space, Passage]](), list[NoRoom]()
    for space in spaces:
        try:
            made.append((space, task.passage(space)))
        except NoRoom as error:
            refused.append(error)
    if refused:
        longest = max(refused, key=lambda error: error.least)
        raise NoRoom(f"{len(refused)} of {len(numbers)} texts are too long: {longest}", longest.least)
    yield from made


def _kept(answered: _Answered, rows: Rows) -> list[Row]:
    """The rows of a passage: those that were known, and those of what was answered now, which are kept."""
    job, found, new = answered.job, list[Row](), list[Row]()
    for number, ask in enumerate(job.passage.asks):
        for place, (row, known) in enumerate(zip(job.planned[number], job.known[number], strict=True)):
            if known is None:
                known = _scored(row, job.task, ask, place, answered.responses[number], answered.graded.get(number))
                new.append(known)
            found.append(known)
    rows.append(new)
    return found


def _graded(judge: Judge | None, job: _Job, responses: Mapping[int, Response]) -> dict[int, Graded]:
    """What the judge says of the answers that are in free words."""
    asks = job.passage.asks
    numbers = [number for number, response in responses.items() if asks[number].free and not response.failed]
    if judge is None:
        return {}
    said = judge.grades([(asks[number].text, asks[number].right, responses[number].written) for number in numbers])
    return dict(zip(numbers, said, strict=True))


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
            **({} if task.sized else _of_file(ask, passage, course.truncate)),
        }  # fmt: skip
        row = replace(course.row, task=task.spec, length=space.length, depth=ask.depth, seed=course.seed)
        first, *others = task.metrics(ask)
        metrics: dict[str, dict[str, Any]] = {first: {}, **{metric: {"chance": 0.0} for metric in others}}
        of = first[: first.rfind("/") + 1]  # a part of a benchmark
        if ask.choices and answerer.chooses:
            metrics[of + LIKELIHOOD] = {"chance": round(1 / len(ask.choices), 6)}
        if ask.free and course.judge is not None:
            metrics[of + JUDGE] = {"chance": 0.0, **course.judge.identity}
        planned.append(tuple(replace(row, settings={**settings, "metric": metric, **more}) for metric, more in metrics.items()))
    return planned


def _kind(row: Row) -> str:
    """The metric of a row without the part of a benchmark that it is of."""
    return str(row.settings["metric"]).rpartition("/")[2]


def _of_file(ask: Ask, passage: Passage, truncate: Side | None) -> dict[str, Any]:
    """What scores hang on where neither seed nor number decides it: the right answer, and what was cut of the text."""
    right = hashlib.sha256(repr((ask.right, ask.expected)).encode()).hexdigest()[:8]
    return {"right": right, "truncated": passage.cut, **({"truncate": truncate} if passage.cut else {})}


def _scored(row: Row, task: TextTask, ask: Ask, place: int, response: Response, graded: Graded | None) -> Row:
    """Args: place: of the row among those of the question."""
    speed = response.tokens / response.seconds if response.tokens and response.seconds else None
    row = replace(row, tokens_per_s=speed, peak_bytes=response.peak_bytes, answer=response.written)
    if response.failed:
        return replace(row, failed=response.failed)
    if _kind(row) == JUDGE:
        return replace(row, score=graded.score, failed=graded.failed) if graded else replace(row, failed="the judge was not asked")
    if _kind(row) != LIKELIHOOD:
        return replace(row, score=float(task.marks(ask, response.written)[place]))
    best = likeliest(response)
    return replace(
        row, score=float(best is not None and ask.choices[best] == ask.right), answer=None if best is None else ask.choices[best]
    )
