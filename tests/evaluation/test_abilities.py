"""Usable lengths by ability: above chance, against the model's own short score, with all of the interval."""

import json
import math

import pytest

from longreach.core import registry
from longreach.evaluation.abilities import ability_curve, above_chance, as_json, cards
from longreach.evaluation.intervals import share_interval
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Row
from longreach.evaluation.text_task import ABILITIES, TextTask


def rows(right, *, task="needle", length, of=40, metric="accuracy", chance=0.0, method="", depth=None, failed=0):
    """Of 40 passages with a question each, so many are right."""
    return [
        Row(
            task=task, model="m", method=method, length=length, depth=(number % 5) / 4 if depth is None else depth, version="1",
            settings={"metric": metric, "passage": number, "chance": chance, "units": "tokens"},
            score=None if number < failed else float(number >= of - right), failed="down" if number < failed else "",
            tokens_per_s=1000.0 / length, peak_bytes=length * 10,
        )
        for number in range(of)
    ]  # fmt: skip


def card(*groups):
    (found,) = cards(row for group in groups for row in group)
    return found


def curve(*shares, **values):
    found = card(*(rows(round(40 * share), length=256 << step, **values) for step, share in enumerate(shares)))
    return found.abilities[0]


def test_usable_is_the_longest_length_up_to_which_all_of_the_interval_keeps_to_the_bar():
    found = curve(1.0, 1.0, 0.95, 0.5, 1.0)
    assert (found.ability, found.usable, found.missed_at) == ("literal", 512, 2048)
    assert found.bar == pytest.approx(0.85)
    assert found.steps[2].score == share_interval(38, 40)
    assert curve(1.0, 1.0, 1.0).usable == 1024
    assert curve(1.0, 1.0, 1.0).missed_at is None


def test_the_bar_is_the_models_own_short_score():
    weak = curve(0.5, 0.5, 0.1)
    assert weak.bar == pytest.approx(0.425)
    assert (weak.usable, weak.missed_at) == (256, 1024), "40 answers tell 0.5 from 0.1, but not from 0.4"


def test_scores_count_above_chance():
    (mark,) = marks(rows(40, length=100, chance=0.25))
    assert above_chance(mark).mean == 1.0
    (mark,) = marks(rows(10, length=100, chance=0.25))
    assert above_chance(mark).mean == pytest.approx(0.0)
    assert curve(0.9, 0.6, chance=0.5).missed_at == 512, "0.6 of answers to yes or no is next to nothing"


def test_what_is_at_chance_on_short_texts_says_nothing():
    guessing = curve(0.5, 0.9, chance=0.5)
    assert (guessing.usable, guessing.steps, guessing.at_chance) == (None, (), ("needle",))
    assert math.isnan(guessing.bar)
    both = card(
        rows(40, length=256), rows(20, length=512), rows(20, length=256, task="passkey", chance=0.5), rows(40, length=512, task="passkey"),
    )  # fmt: skip
    (literal,) = both.abilities
    assert (literal.tasks, literal.at_chance) == (("needle",), ("passkey",))
    assert literal.steps[1].score.mean == 0.5


def test_likelihood_judges_where_nothing_right_is_written():
    silent = card(rows(0, length=256), rows(36, length=256, metric="likelihood", chance=0.1))
    assert [(one.metric, one.judged) for one in silent.tasks] == [("likelihood", True)]
    writing = card(rows(36, length=256), rows(40, length=256, metric="likelihood", chance=0.1))
    assert [one.metric for one in writing.tasks] == ["accuracy"]


def test_tasks_of_an_ability_are_averaged_at_the_lengths_that_all_have():
    found = card(
        rows(40, length=256), rows(40, length=512), rows(40, length=1024),
        rows(40, length=512, task="passkey"), rows(20, length=1024, task="passkey"),
    )  # fmt: skip
    (literal,) = found.abilities
    assert [step.length for step in literal.steps] == [512, 1024]
    assert literal.steps[1].score.mean == 0.75
    assert literal.steps[1].n == 80
    wide, single = literal.steps[1].score, share_interval(20, 40)
    assert wide.mean - wide.low < single.mean - single.low
    assert ability_curve("literal", []).usable is None


def test_depths_speed_and_failures():
    found = card(rows(40, length=256, failed=3), rows(8, length=512, depth=0.9))
    assert found.failed == 3
    assert found.depths.lengths == (256, 512)
    assert found.depths.score[0.9, 512] == 0.2
    assert (0.1, 512) not in found.depths.score
    assert found.speed == ((256, 1000 / 256, 2560), (512, 1000 / 512, 5120))
    written = as_json(found)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["depths"]["scores"][0] == [1.0, None]


def test_each_method_has_a_card_and_other_rows_have_none():
    loss = Row(task="loss", model="m", method="", length=100, version="1", settings={"metric": "loss"}, score=2.0)
    found = cards([*rows(40, length=256), loss, *rows(40, length=256, method="yarn:factor=2")])
    assert [(one.model, one.method) for one in found] == [("m", ""), ("m", "yarn:factor=2")]


def test_a_folder_that_is_called_as_an_ability_has_tasks_of_that_ability():
    tasks = [task for task in registry.methods("task") if issubclass(task, TextTask)]
    folders = {task.name(): task.__module__.split(".")[-2] for task in tasks}
    assert {"ordering", "aggregation"} <= set(folders.values())
    assert [task.name() for task in tasks if folders[task.name()] in ABILITIES and folders[task.name()] != task.ability] == []
