"""Methods that were asked the same are told apart where they differ, and nowhere else."""

import numpy as np
import pytest

from longreach.evaluation.ranking import as_json, rank
from longreach.evaluation.rows import Row


def rows(method, scores, *, task="needle", length=100, metric="accuracy", chance=0.0):
    return [
        Row(
            task=task, model="m", method=method, length=length, version="1", score=float(score),
            settings={"metric": metric, "passage": at, "chance": chance, "units": "tokens"},
        )
        for at, score in enumerate(scores)
    ]  # fmt: skip


def test_means_order_and_distance_on_the_same_passages():
    ranking = rank([*rows("a", [1, 0, 0, 1] * 10), *rows("b", [1, 1, 1, 1] * 10), *rows("c", [1, 1, 1, 0] * 10)])
    assert [one.method for one in ranking.ranks] == ["b", "c", "a"]
    assert [round(one.score.mean, 3) for one in ranking.ranks] == [1.0, 0.75, 0.5]
    assert ranking.ranks[0].behind is None
    assert ranking.ranks[2].behind.mean == pytest.approx(0.5)
    assert not ranking.ranks[2].is_noise
    assert ranking.passages == 40


def test_a_small_difference_is_noise():
    first, second = [1] * 30 + [0] * 10, [1] * 29 + [0] * 11
    ranking = rank([*rows("a", first), *rows("b", second)])
    assert [one.method for one in ranking.ranks] == ["a", "b"]
    assert ranking.ranks[1].is_noise


def test_pairing_tells_apart_what_intervals_alone_do_not():
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    ranking = rank([*rows("a", hard, metric="f1"), *rows("b", hard - 0.02, metric="f1")])
    first, second = ranking.ranks
    assert second.score.high > first.score.low
    assert not second.is_noise


@pytest.mark.parametrize(("gap", "passages"), [(0.0, 50), (0.0, 6), (0.3, 50)])
def test_equals_are_rarely_told_apart_and_unequals_nearly_always(gap, passages):
    rng, told = np.random.default_rng(1), 0
    for _ in range(100):
        a, b = rng.random(passages), rng.random(passages) + gap
        ranking = rank([*rows("a", a, metric="f1"), *rows("b", b, metric="f1")], seed=1)
        told += not ranking.ranks[1].is_noise
    assert told <= 13 if gap == 0 else told >= 80, "the better of two equals is told from the other in some 5 of 100"


def test_scores_count_above_chance_and_tasks_alike():
    ranking = rank(
        [*rows("a", [1] * 40), *rows("a", [1] * 30 + [0] * 10, task="passkey", chance=0.5)],
    )
    assert ranking.ranks[0].score.mean == pytest.approx((1 + 0.5) / 2)
    assert ranking.ranks[0].by_length == {100: pytest.approx(0.75)}


def test_a_task_in_which_nobody_is_above_chance_tells_nothing():
    silent = [*rows("a", [0] * 40), *rows("b", [0] * 40)]
    likely = [*rows("a", [1] * 40, metric="likelihood", chance=0.1), *rows("b", [0] * 40, metric="likelihood", chance=0.1)]
    lost = [*rows("a", [1, 0] * 20, task="passkey", chance=0.5), *rows("b", [0, 1] * 20, task="passkey", chance=0.5)]
    ranking = rank([*silent, *likely, *lost])
    assert (dict(ranking.tasks), ranking.at_chance) == ({"needle": "likelihood"}, ("passkey",))
    assert [one.method for one in ranking.ranks] == ["a", "b"]
    assert not rank(lost).ranks


def test_passages_that_one_method_lacks_count_for_none():
    ranking = rank([*rows("a", [1] * 40), *rows("b", [1] * 30)])
    assert ranking.passages == 30
    written = as_json(ranking)
    assert written["ranks"][1]["noise"]
