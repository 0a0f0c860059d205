"""Chains of assignments are scattered in order, and each is asked for."""

import re

import pytest

from longreach.evaluation.tasks.reasoning.variable_tracking import EXAMPLES, VariableTracking
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made


def reading(passage, question):
    (value,) = re.findall(r"\d+", question)
    known = {}
    for name, before in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", passage):
        known[name] = known.get(before, before)
    found = [name for name, held in known.items() if held == value]
    return f"They are {' and '.join(found)}."


@pytest.mark.parametrize("task", EXAMPLES, ids=str)
def test_who_follows_the_assignments_finds_all_variables(task):
    assert mean_mark(task, reading) == 1


def test_assignments_stand_in_order_and_chains_are_mixed():
    mixed = 0
    for number in range(10):
        passage = made(VariableTracking(chains=3, hops=3), number)
        places = [[passage.text.index(line) for line in ask.evidence] for ask in passage.asks]
        assert all(len(chain) == 4 and chain == sorted(chain) for chain in places)
        mixed += any(one[0] < other[0] < one[-1] for one in places for other in places)
    assert mixed >= 8


def test_naming_every_variable_and_missing_some_cost():
    task = VariableTracking(chains=2, hops=1)
    ask = made(task).asks[0]
    one, other = ask.right.split(", ")
    assert task.mark(ask, f"{one.lower()}, {other.lower()}") == 1
    assert task.mark(ask, one) == pytest.approx(2 / 3)
    assert task.mark(ask, ", ".join(ask.choices)) == pytest.approx(2 / 3)


def test_lengths_and_haystacks_share_their_chains():
    assert facts(VariableTracking(chains=2), 12_000) == facts(VariableTracking(chains=2, haystack="text"), 12_000)
    assert facts(VariableTracking(), 12_000) == facts(VariableTracking(), 40_000)
