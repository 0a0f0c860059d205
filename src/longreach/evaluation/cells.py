"""What has been found so far, cell by cell, and whether more of it is of interest: measuring ends where it decides."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean

from longreach.evaluation.intervals import Interval, block_interval, reaches
from longreach.evaluation.rows import Row, by_block
from longreach.evaluation.usable import KEEPS, LOSS, METRIC, RISE

_TEXTS = 2  # before a loss may be called as low as inside the window
_INSIDE, _INSIDE_OTHER = 50, 25  # questions: where bars follow from the answers, and where they do not

Cell = tuple[str, int]  # a task at a length


@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When to stop.

    Args: early: at a length as soon as that is decided. standard: rows of `loss_inside` on the same texts, where that task is not among
    those measured. short: share of right answers inside the window that the bars follow from, where it is another model's. texts: at most
    so many of the windows. give_up: at the first length beyond the window where the model is lost by all that is measured, and of the loss
    at a length as soon as a retrieval there rules out that all is good.
    """

    early: bool = True
    standard: Sequence[Row] = ()
    short: float | None = None
    texts: int | None = None
    give_up: bool = False


UNTIL_DECIDED = Stopping()


class Cells:
    """The rows taken so far. A cell is a task at a length.

    Args: trained_window: tokens. depths: at how many facts stand. shared: tasks that ask many questions of a text. texts: that there are
    to read. decide: whether a cell ends where it is decided. A retrieval beyond the window ends as soon as all of its interval lies on one
    side of the bar, and every depth was asked about, but not before a second text was asked about, too, where it is on the right side, for
    texts differ; and after two texts where all of them would not decide it, were the answers to the others like those so far. One inside
    ends after 50 questions, or 25 where the bars are another model's. A loss beyond the window ends as soon as a text decides it, but not
    before two where it is on the right side, one inside after two texts. Otherwise everything is wanted.
    """

    def __init__(
        self, trained_window: int, stopping: Stopping, *, depths: int, decide: bool, shared: Collection[str] = (), texts: int = 1
    ) -> None:
        self.trained_window, self.stopping, self.depths, self.decide = trained_window, stopping, depths, decide
        self.shared, self.texts, self._read = shared, texts, 0
        self.standard = by_block(stopping.standard)
        self.rows: list[Row] = []
        self._taken: set[str] = set()
        self._answers: dict[Cell, list[float]] = defaultdict(list)
        self._losses: dict[Cell, list[Row]] = defaultdict(list)
        self._ended: dict[Cell, bool | None] = {}  # whether it reached the bar; None where there is none
        self._lost_at: int | None = None
        self._asked: dict[Cell, int] = {}  # questions to the first text

    def has(self, row: Row) -> bool:
        """Whether it was taken."""
        return row.identity in self._taken

    def wanted(self, row: Row) -> bool:
        """Whether its cell is still open."""
        return (row.task, row.length) not in self._ended and not (self._lost_at and row.length > self._lost_at)

    def take(self, rows: Sequence[Row]) -> None:
        """Add measured rows."""
        self.rows += rows
        self._taken |= {row.identity for row in rows}
        for _, of_cell in groupby(rows, key=lambda row: (row.task, row.length)):
            self._take_cell(list(of_cell))

    def _take_cell(self, rows: Sequence[Row]) -> None:
        cell, metric = (rows[0].task, rows[0].length), rows[0].settings["metric"]
        of_metric = [row for row in rows if row.settings["metric"] == (METRIC if metric != LOSS else LOSS)]
        if metric == LOSS and cell[0] == LOSS:
            self._losses[cell] += of_metric
        elif metric != LOSS:
            self._answers[cell] += [row.score or 0.0 for row in of_metric]
        if self.decide and metric != LOSS:
            self._judge_answers(*cell)
        elif cell[0] == LOSS and self.decide and self.stopping.give_up and rows[-1].settings["span"][1] == cell[1] > self.trained_window:
            self._give_up(*cell)

    def compares(self, row: Row) -> bool:
        """Whether a row of the standard has its like among the losses taken, or no losses are."""
        return not self._losses or any((row.settings["text"], row.settings["span"][0]) in by_block(rows) for rows in self._losses.values())

    def end_text(self, inside: Sequence[Row]) -> None:
        """A text has been read to its end. Args: inside: new rows of the standard."""
        self.standard |= by_block(inside)
        self._read += 1
        self._asked = {cell: len(answers) for cell, answers in self._answers.items()} | self._asked
        if self.decide and self._read >= _TEXTS:
            self._end_hopeless()
        for task, length in list(self._losses) if self.decide else ():
            self._judge_loss(task, length)
            if length > self.trained_window and self.stopping.give_up and self._ruled_out(length):
                self._ended.setdefault((task, length), None)

    def _judge_answers(self, task: str, length: int) -> None:
        right, n = sum(self._answers[task, length]), len(self._answers[task, length])
        if length <= self.trained_window:
            if n >= (_INSIDE if self.stopping.short is None else _INSIDE_OTHER):
                self._ended[task, length] = None
        elif n >= self.depths and (verdict := reaches(right, n, self._bar(task))) is not None:
            asked = n - self._asked.get((task, length), n)  # of another text than the first
            if not (verdict and task in self.shared and asked < 2 * self.depths):
                self._ended[task, length] = verdict

    @property
    def open(self) -> bool:
        """Whether more of any cell that was begun is wanted."""
        begun = [*self._answers, *self._losses]
        return any(cell not in self._ended and not (self._lost_at and cell[1] > self._lost_at) for cell in begun)

    def _ruled_out(self, length: int) -> bool:
        """Whether a retrieval at the length did not reach its bar, or will not be known to."""
        return any(at == length and self._ended.get((name, at), True) is not True for name, at in self._answers)

    def _end_hopeless(self) -> None:
        """End the retrievals that the texts left would not decide."""
        for (task, length), answers in self._answers.items():
            if task in self.shared and length > self.trained_window and (task, length) not in self._ended:
                times = self.texts / self._read
                if reaches(sum(answers) * times, round(len(answers) * times), self._bar(task)) is None:
                    self._ended[task, length] = None

    def _bar(self, task: str) -> float:
        short = self.stopping.short
        inside = [one for (name, length), of in self._answers.items() if name == task and length <= self.trained_window for one in of]
        return KEEPS * (short if short is not None else fmean(inside) if inside else 1.0)

    def _judge_loss(self, task: str, length: int) -> None:
        rows = self._losses[task, length]
        texts = len({row.settings["text"] for row in rows})
        if length <= self.trained_window or (rise := self._rise(rows)) is None:
            if texts >= _TEXTS:
                self._ended[task, length] = None
        elif rise.low > RISE or (texts >= _TEXTS and rise.high <= RISE):
            self._ended[task, length] = rise.low <= RISE

    def _rise(self, rows: Sequence[Row]) -> Interval | None:
        """Above the standard; None where that was not measured."""
        blocks = by_block(rows)
        return (
            block_interval([loss - self.standard[block] for block, loss in blocks.items()])
            if blocks.keys() <= self.standard.keys()
            else None
        )

    def _give_up(self, task: str, length: int) -> None:
        """Note that the model is lost at a length, if it is by its loss and by every retrieval asked for there."""
        rise = self._rise(self._losses[task, length])
        retrievals = [name for name, at in self._answers if at == length]
        if rise is not None and rise.low > RISE and all(self._ended.get((name, length)) is False for name in retrievals):
            self._lost_at = length
