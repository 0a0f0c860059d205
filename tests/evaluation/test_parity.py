from dataclasses import replace

import pytest

from longreach.evaluation.intervals import mean_interval
from longreach.evaluation.parity import parity
from longreach.evaluation.rows import Row


def run(scores, *, first=0, metric="accuracy", template="none", task="needle", length=100, **values):
    """A row for each question, the first of which has that number."""
    return [
        Row(
            task=task, model="m", method="", length=length, version="1", score=score, failed="" if score is not None else "down",
            settings={"metric": metric, "passage": at, "question": 0, "input": f"text {at}", "asked": "q", "template": template},
            **values,
        )
        for at, score in enumerate(scores, first)
    ]  # fmt: skip


def test_the_same_run_is_the_same():
    rows = run([1.0, 0.0, 1.0])
    found = parity(rows, rows)
    assert found.settings == {}
    (cell,) = found.cells
    assert (cell.means, cell.shared, cell.only, cell.flips, cell.is_noise) == ((2 / 3, 2 / 3), 3, (0, 0), (0, 0), True)


def test_what_was_asked_and_what_was_answered_are_told_apart():
    found = parity(run([1.0] * 30 + [0.0] * 10), run([0.0] * 25 + [1.0] * 15, first=10, template="chat", seed=1))
    assert found.settings == {"seed": (("null",), ("1",)), "template": (('"none"',), ('"chat"',))}
    (cell,) = found.cells
    assert (cell.shared, cell.only) == (30, (10, 10))
    assert cell.flips == (20, 5)
    assert cell.difference.mean == pytest.approx(-0.5)
    assert not cell.is_noise


def test_few_flips_are_noise_and_many_are_not():
    (cell,) = parity(run([1.0] * 40), run([1.0] * 39 + [0.0])).cells
    assert cell.is_noise
    (cell,) = parity(run([1.0] * 40), run([1.0] * 20 + [0.0] * 20)).cells
    assert not cell.is_noise


def test_graded_scores_have_students_interval():
    (cell,) = parity(run([0.2, 0.4, 0.9], metric="f1"), run([0.3, 0.4, 0.7], metric="f1")).cells
    assert cell.difference == mean_interval([0.3 - 0.2, 0.0, 0.7 - 0.9])
    assert cell.flips == (1, 1)


def test_what_failed_is_no_score_and_is_counted():
    (cell,) = parity(run([1.0, None, 0.0]), run([None, None, None])).cells
    assert (cell.means, cell.failed, cell.shared, cell.difference) == ((0.5, None), (1, 3), 0, None)


def test_tasks_that_one_run_has_alone_are_told():
    found = parity([*run([1.0]), *run([1.0], length=200)], [*run([1.0]), *run([1.0], task="passkey")])
    assert found.alone == ((("needle", "accuracy", 200),), (("passkey", "accuracy", 100),))
    assert len(found.cells) == 1


def test_rows_of_other_tasks_are_left_out():
    loss = replace(run([1.0])[0], settings={"metric": "loss"})
    assert not parity([loss], [loss]).cells
