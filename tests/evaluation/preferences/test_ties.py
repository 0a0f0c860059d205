"""WildBench's rule on cases made by hand."""

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.evaluation.preferences.annotations import Annotations
from longreach.evaluation.preferences.ties import outcomes, parse_rule


def cases(*rows):
    """(preference, characters by which the system's output is longer)"""
    preference, longer = np.array(rows, float).T
    return Annotations(
        place="x", system="a", baseline="b", annotator="", instructions=tuple(map(str, range(len(rows)))), index=tuple(range(len(rows))),
        lengths=2000 + longer, baseline_lengths=np.full(len(rows), 2000.0), preference=preference,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("preference", "longer", "before", "after"),
    [
        (0.75, 501, 50, 0),  # a slight winner that is too long
        (0.75, 500, 50, 50),  # not by more than 500
        (0.75, -2000, 50, 50),  # the winner is the shorter one
        (0.25, -501, -50, 0),  # the baseline's slight win, by length
        (0.25, -500, -50, -50),
        (0.25, 2000, -50, -50),
        (1.0, 2000, 100, 100),  # a clear win stays
        (0.0, -2000, -100, -100),
        (0.5, 2000, 0, 0),
    ],
)
def test_a_slight_win_by_length_is_a_tie(preference, longer, before, after):
    case = cases((preference, longer))
    assert outcomes(case).reward == before
    found = outcomes(case, 500)
    assert found.reward == after
    assert found.turned == (before != after)


def test_counts_and_comparisons_without_judgement():
    case = cases((1, 0), (0.75, 900), (0.75, 0), (0.25, -900), (0.02, 0), (0.6, 0), (np.nan, 0), (0.9, 0))
    found = outcomes(case, 500)
    assert (found.win_much, found.win, found.tie, found.lose, found.lose_much) == (2, 1, 3, 0, 1)
    assert (found.total, found.turned) == (8, 2)
    assert found.reward == (200 + 50 - 100) / 8
    assert outcomes(case).reward == (200 + 100 - 50 - 100) / 8


def test_the_rule_as_it_is_written():
    assert (parse_rule("wildbench:300"), parse_rule("wildbench")) == (300, 500)
    for wrong in ("wildbench:", "wildbench:-1", "500", "arena:500"):
        with pytest.raises(InputError, match="write wildbench:500"):
            parse_rule(wrong)
