"""Asks a model or an endpoint all questions of some tasks at some lengths, and keeps a row for each answer."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from longreach.core.errors import InputError, LongreachError
from longreach.core.progress import SILENT, Progress
from longreach.endpoint.errors import EndpointError
from longreach.endpoint.ordered import in_order
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
    text. row: what all rows have in common: model, method, version, and in its settings all else that determines a score. share: (k, n): of
    the passages every nth, from the kth on, where several processes share the work. Raises: InputError for nothing to ask."""

    tasks: Sequence[TextTask]
    lengths: Sequence[int]
    passages: int = PASSAGES
    seed: int = 0
    text: str | None = None
    row: Row
    share: tuple[int, int] = (0, 1)

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


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A passage. Args: planned: for each question its rows, still without scores. known: those that were measured before. missing: the
    numbers of the questions that are to be asked."""

    task: TextTask
    passage: Passage
    planned: Sequence[tuple[Row, ...]]
    known: Sequence[tuple[Row | None, ...]]
    missing: Sequence[int]

    @property
    def asks(self) -> tuple[Ask, ...]:
        return tuple(self.passage.asks[number] for number in self.missing)


def take(answerer: Answerer, course: Course, rows: Rows, *, progress: Progress = SILENT) -> Examined:
    """Every question that is not among the rows is asked; rows are kept passage by passage, so that a stopped run goes on.

    Raises: NoRoom where no length holds any of the tasks; InputError for too little text; what the answerer raises.
    """
    found: list[Row] = []
    impossible: dict[tuple[str, int], str] = {}

    def answered(job: _Job) -> tuple[_Job, list[Response]]:
        asked = replace(job.passage, asks=job.asks)
        return job, answerer.answers(asked, progress=progress) if job.missing else []

    jobs = _jobs(answerer, course, rows, impossible, progress)
    done = map(answered, jobs) if answerer.at_once == 1 else in_order(answered, jobs, answerer.at_once)
    for outcome in done:
        if isinstance(outcome, EndpointError):  # answerers say in their responses what failed
            raise outcome
        found += _kept(*outcome, rows)
    return Examined(rows=tuple(found), impossible=impossible)


def _jobs(answerer: Answerer, course: Course, rows: Rows, impossible: dict[tuple[str, int], str], progress: Progress) -> Iterator[_Job]:
    """Every passage, made when its turn comes; lengths that hold a task not are noted in `impossible`."""
    filler = Filler(course.text, answerer.units) if course.text else None
    for task in course.tasks:
        for length in course.lengths:
            progress.start(f"{task.name()} at {length}", length * course.passages)
            for number in range(course.share[0], course.passages, course.share[1]):
                space = Space(task=task.spec, length=length, units=answerer.units, seed=course.seed, number=number, text=filler)
                try:
                    passage = task.passage(space)
                except NoRoom as error:
                    impossible[task.spec, length] = str(error)
                    break
                planned = _planned(course, task, space, passage, answerer)
                known = [tuple(rows.get(row) for row in wanted) for wanted in planned]
                missing = [number for number, of in enumerate(known) if any(row is None for row in of)]
                yield _Job(task=task, passage=passage, planned=planned, known=known, missing=missing)
    if len(impossible) == len(course.tasks) * len(course.lengths):
        raise NoRoom(impossible[course.tasks[0].spec, max(course.lengths)])


def _kept(job: _Job, responses: Sequence[Response], rows: Rows) -> list[Row]:
    """The rows of a passage: those that were known, and those of what was answered now, which are kept."""
    new = {
        number: [_scored(row, job.task, ask, response) for row in job.planned[number]]
        for number, ask, response in zip(job.missing, job.asks, responses, strict=True)
    }
    rows.append([row for of in new.values() for row in of])
    return [row for number, of in enumerate(job.known) for row in new.get(number, of) if row is not None]


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


def _scored(row: Row, task: TextTask, ask: Ask, response: Response) -> Row:
    speed = response.tokens / response.seconds if response.tokens and response.seconds else None
    row = replace(row, tokens_per_s=speed, peak_bytes=response.peak_bytes, answer=response.written)
    if response.failed:
        return replace(row, failed=response.failed)
    if row.settings["metric"] != LIKELIHOOD:
        return replace(row, score=float(task.mark(ask, response.written)))
    best = likeliest(response)
    return replace(
        row, score=float(best is not None and ask.choices[best] == ask.right), answer=None if best is None else ask.choices[best]
    )
