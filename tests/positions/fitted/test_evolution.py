import math
from itertools import pairwise
from random import Random

import pytest

from longreach.core.fitting import BudgetSpent
from longreach.positions.fitted._evolution import START_TOKENS, Individual, Search

BEST = (1.0, 1.2, 1.9, 3.0, 4.5, 7.0)
STARTS = (Individual((8.0,) * 6), Individual((1.0, 1.5, 2.3, 3.5, 5.3, 8.0)), Individual((1.0, 1.0, 1.0, 4.0, 8.0, 8.0)))
SMALL = Search(most=10.0, population=12, parents=6, mutations=5, crossovers=5, iterations=12, start_tokens=START_TOKENS)


class Objective:
    """How far candidates are from BEST, with 16 unscaled tokens; remembers what it was asked, and may refuse to go on."""

    def __init__(self, most=math.inf):
        self.asked, self.most = [], most

    def __call__(self, candidate):
        if len(self.asked) >= self.most:
            raise BudgetSpent
        self.asked.append(candidate)
        distance = sum((math.log(a) - math.log(b)) ** 2 for a, b in zip(candidate.factors, BEST, strict=True))
        return distance + 0.1 * (candidate.start_tokens != 16)


def test_every_candidate_is_in_the_search_space_and_asked_for_once():
    # Table 4 of the paper: factors from 1 to 1.25 times the ratio in steps of 0.01, never falling; the counts of unscaled tokens.
    objective = Objective()
    SMALL.run(STARTS, objective, Random(0))
    assert len(set(objective.asked)) == len(objective.asked) <= SMALL.evaluations == 12 + 12 * 10
    given = {factor for start in STARTS for factor in start.factors}
    for candidate in objective.asked:
        assert all(a <= b for a, b in pairwise(candidate.factors)), candidate
        assert all(1.0 <= factor <= 10.0 for factor in candidate.factors), candidate
        assert all(factor in given or math.isclose(factor * 100, round(factor * 100)) for factor in candidate.factors), candidate
        assert candidate.start_tokens in START_TOKENS
    assert len({candidate.start_tokens for candidate in objective.asked}) > 5


def test_it_finds_better_than_it_began_with():
    objective = Objective()
    before = min(map(Objective(), STARTS))
    best, loss = SMALL.run(STARTS, objective, Random(0))
    assert loss == Objective()(best) == min(map(Objective(), objective.asked))
    assert loss < before / 2


@pytest.mark.parametrize("seed", range(5))
def test_the_starts_come_first_and_the_result_is_never_worse(seed):
    for most in (3, 4, 20):
        objective = Objective(most)
        _, loss = SMALL.run(STARTS, objective, Random(seed))
        assert objective.asked[:3] == list(STARTS)
        assert len(objective.asked) == most
        assert loss <= min(map(Objective(), STARTS))


def test_without_a_single_evaluation_there_is_no_result():
    with pytest.raises(BudgetSpent):
        SMALL.run(STARTS, Objective(0), Random(0))


def test_the_same_seed_asks_the_same():
    asked = []
    for seed in (3, 3, 4):
        objective = Objective()
        SMALL.run(STARTS, objective, Random(seed))
        asked.append(objective.asked)
    assert asked[0] == asked[1] != asked[2]


def test_children_come_of_the_best():
    # A mutation keeps most factors of its parent (each changes with a chance of 0.3), a crossover takes all of them from two.
    objective = Objective()
    Search(most=10.0, population=3, parents=1, mutations=200, crossovers=1, iterations=1).run(STARTS, objective, Random(0))
    parent = min(STARTS, key=Objective())
    kept = [sum(a == b for a, b in zip(child.factors, parent.factors, strict=True)) for child in objective.asked[3:]]
    assert 0.6 < sum(kept) / (6 * len(kept)) < 0.75


def test_a_crossover_mixes_two_parents():
    objective = Objective()
    parents = (Individual((1.0, 2.0, 3.0)), Individual((1.5, 2.5, 3.5)))

    def three(candidate):
        return objective(Individual((*candidate.factors, 9.0, 9.0, 9.0)))

    Search(most=4.0, population=2, parents=2, mutations=1, crossovers=3, iterations=1).run(parents, three, Random(1))
    children = [child.factors[:3] for child in objective.asked[3:]]
    assert len(children) == 3
    assert all(
        set(pair) >= {factor}
        for child in children
        for factor, pair in zip(child, zip(*[p.factors for p in parents], strict=True), strict=True)
    )


def test_a_start_beyond_the_space_begins_at_its_edge():
    objective = Objective()
    Search(most=1.25, population=1, parents=1, mutations=1, crossovers=1, iterations=1).run([STARTS[1]], objective, Random(0))
    assert objective.asked[0].factors == (1.0, 1.25, 1.25, 1.25, 1.25, 1.25)


def test_a_space_with_no_room_ends():
    objective = Objective()
    most = Search(most=1.0, population=8, parents=2, mutations=4, crossovers=4, iterations=3)
    assert most.run([Individual((1.0,) * 6)], objective, Random(0))[0] == Individual((1.0,) * 6)
    assert len(objective.asked) == 1
