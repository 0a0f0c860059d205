import numpy as np
import pytest

from longreach.evaluation.intervals import share_interval
from longreach.evaluation.marks import clustered_interval, marks
from longreach.evaluation.rows import Row


def row(score, passage=0, metric="accuracy", chance=0.25, failed="", **values):
    settings = {"metric": metric, "passage": passage, "chance": chance}
    return Row(task="t", model="m", method="", length=100, version="1", settings=settings, score=score, failed=failed, **values)


def test_questions_of_different_passages_count_each():
    assert clustered_interval([[1.0], [0.0], [1.0], [1.0]]) == share_interval(3, 4)


def test_questions_that_agree_within_a_passage_count_as_one():
    assert clustered_interval([[1.0] * 5, [0.0] * 5, [1.0] * 5, [1.0] * 5]) == pytest.approx(share_interval(3, 4))


@pytest.mark.parametrize(("spread", "least"), [(0.0, 0.9), (0.35, 0.88)])
def test_the_interval_holds_the_mean_as_often_as_it_says(spread, least):
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        chances = np.clip(0.5 + spread * rng.choice([-1, 1], size=12), 0, 1)
        groups = [(rng.random(5) < chance).astype(float).tolist() for chance in chances]
        found = clustered_interval(groups)
        held += found.low <= 0.5 <= found.high
    assert held / 400 >= least


def test_a_mark_is_told_from_guessing_or_not():
    (some,) = marks([row(float(number < 9), number) for number in range(10)])
    assert (some.n, some.passages, some.interval.mean, some.above_chance) == (10, 10, 0.9, True)
    (few,) = marks([row(float(number < 4), number) for number in range(10)])
    assert not few.above_chance


def test_what_failed_counts_for_nothing_but_is_told():
    (one,) = marks([row(1.0), row(None, failed="the server is down")])
    assert (one.n, one.failed, one.interval.mean) == (1, 1, 1.0)
    (none,) = marks([row(None, failed="the server is down")])
    assert (none.n, none.failed, none.above_chance) == (0, 1, False)


def test_graded_marks_have_an_interval_over_passages():
    (graded,) = marks([row(0.2 + 0.1 * number, number, "f1") for number in range(5)])
    assert graded.interval.mean == pytest.approx(0.4)
    assert 0 < graded.interval.low < 0.4 < graded.interval.high < 1
