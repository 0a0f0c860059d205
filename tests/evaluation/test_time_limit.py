"""What an evaluation has time for, by a clock that the answers move on."""

from dataclasses import replace

import pytest

from longreach.core.progress import Progress
from longreach.evaluation.course import take
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Rows
from longreach.evaluation.time_limit import TimeLimit
from tests.evaluation.test_course import COURSE, Scripted, knows


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Slow(Scripted):
    """Takes a second for 1,000 characters."""

    def __init__(self, clock):
        super().__init__(knows)
        self.clock = clock

    def answers(self, passage, *, progress):
        self.clock.now += round(len(passage.whole) / 1000)
        return super().answers(passage, progress=progress)


def test_what_a_passage_takes_is_what_one_took_or_the_slowest_at_its_length_or_the_square_of_a_shorter_one():
    clock = Clock()
    limit = TimeLimit(100, clock)
    assert limit.expected("needle", 1000) == 0
    for task, length, seconds in (("needle", 1000, 2), ("passkey", 1000, 3), ("needle", 1000, 1)):
        with limit.timed(task, length):
            clock.now += seconds
    assert [limit.expected(task, 1000) for task in ("needle", "passkey", "tsort")] == [2, 3, 3]
    assert limit.expected("tsort", 4000) == 2 * 16, "of the fastest at the shorter length: it may be the same work"
    assert limit.expected("tsort", 500) == 0
    clock.now = 100.0 + 100 - 2
    assert limit.fits("needle", 1000)
    assert not limit.fits("passkey", 1000)


@pytest.mark.parametrize(
    ("seconds", "counts", "left_out"),
    [
        (1000, [3, 3, 3, 3], {}),
        (2 * (2 + 4) + 2, [2, 1, 1, 1], {("needle", 2000): 1, ("needle", 4000): 2, ("passkey", 2000): 2, ("passkey", 4000): 2}),
        (2 + 2 + 8 - 1, [3, 0, 2, 0], {("needle", 4000): 3, ("passkey", 2000): 1, ("passkey", 4000): 3}),
        (5, [1, 0, 1, 0], {("needle", 2000): 2, ("needle", 4000): 3, ("passkey", 2000): 2, ("passkey", 4000): 3}),
    ],
)
def test_rounds_begin_with_short_passages_and_leave_out_what_does_not_fit(seconds, counts, left_out):
    clock = Clock()
    found = take(Slow(clock), COURSE, Rows(), limit=TimeLimit(seconds, clock))
    by_cell = {(mark.task, mark.length): mark.n for mark in marks(found.rows)}
    cells = [(task.name(), length) for task in COURSE.tasks for length in COURSE.lengths]
    assert [by_cell.get(cell, 0) for cell in cells] == counts
    assert found.left_out == left_out
    assert clock.now <= 100 + seconds


def test_a_second_run_goes_on_and_ends_with_the_rows_of_a_run_without_a_limit(tmp_path):
    clock, rows = Clock(), tmp_path / "rows.jsonl"
    first = take(Slow(clock), COURSE, Rows(rows), limit=TimeLimit(20, clock))
    assert sum(first.left_out.values()) > 0
    again = Slow(clock)
    second = take(again, COURSE, Rows(rows), limit=TimeLimit(1000, clock))
    assert again.passages == 12 - len(first.rows)
    assert not second.left_out
    whole = take(Scripted(knows), COURSE, Rows())
    assert sorted(map(repr, (row.identity for row in second.rows))) == sorted(map(repr, (row.identity for row in whole.rows)))


def test_progress_is_that_of_a_passage_and_not_of_all_that_there_may_be_no_time_for():
    labels = []

    class Told(Progress):
        def start(self, label, total):
            labels.append((label, total))

    clock = Clock()
    take(Slow(clock), replace(COURSE, passages=2), Rows(), limit=TimeLimit(1000, clock), progress=Told())
    assert labels[:2] == [("needle at 2000, passage 1", 2000), ("passkey at 2000, passage 1", 2000)]
    assert labels[-1] == ("passkey at 4000, passage 2", 4000)


def test_lengths_that_hold_no_task_take_no_time():
    clock = Clock()
    found = take(Slow(clock), replace(COURSE, lengths=(300, 2000)), Rows(), limit=TimeLimit(1000, clock))
    assert list(found.impossible) == [("passkey", 300)]
    assert not found.left_out
