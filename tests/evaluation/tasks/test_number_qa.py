"""Numbers that real text states once are asked for, as they are or altered."""

import re
from functools import cache

import numpy as np
import pytest

from longreach.core.errors import InputError
from longreach.data.stdlib import stdlib_text
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.documents._numbers import alike, stated
from longreach.evaluation.tasks.documents.altered_qa import AlteredQa
from longreach.evaluation.tasks.documents.freeform_qa import FreeformQa
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

TRUE, ALTERED = FreeformQa(), AlteredQa()


def reading(passage, question):
    before, after = re.search(r'above\? "(.*) ____(.*)" Answer with', question).groups()
    pattern = (
        r"\s+".join(map(re.escape, before.split()))
        + r"\s+(\d+)"
        + r"\s+" * after[:1].isspace()
        + r"\s+".join(map(re.escape, after.split()))
    )
    (number,) = re.findall(pattern, passage)
    return f"{before} {number}."


@pytest.mark.parametrize("task", [TRUE, ALTERED], ids=str)
def test_who_finds_the_sentence_reads_the_number(task):
    assert mean_mark(task, reading) == 1


@cache
def source():
    return stdlib_text("held-out")[:300_000]


def test_the_text_states_the_true_number_and_the_altered_one_is_of_the_same_form():
    for number in range(10):
        passage, altered = made(TRUE, number), made(ALTERED, number)
        for ask, other in zip(passage.asks, altered.asks, strict=True):
            assert ask.text == other.text
            assert set(ask.choices) == set(other.choices)
            assert ask.evidence[0] in source()
            assert other.evidence[0].replace(other.right, ask.right) == ask.evidence[0]
            assert other.right != ask.right
            assert len(other.right) == len(ask.right)


@pytest.mark.parametrize("task", [TRUE, ALTERED], ids=str)
def test_the_answer_stands_in_the_passage_once_and_the_true_number_nowhere_else(task):
    for number in range(10):
        passage, true = made(task, number, length=60_000), made(TRUE, number, length=60_000)
        said = re.findall(r"\d+", passage.text)
        for ask, other in zip(passage.asks, true.asks, strict=True):
            assert said.count(ask.right) == 1
            assert said.count(other.right) == (ask.right == other.right)


def test_years_change_by_ten_at_most_and_other_numbers_keep_their_digits():
    rng = np.random.default_rng(0)
    years = [int(year) for _ in range(30) for year in alike("1984", frozenset(), rng)]
    assert {abs(year - 1984) for year in years} == set(range(1, 11))
    for number in ("42", "731", "9042", "123456"):
        others = alike(number, frozenset(), rng)
        assert len(set(others)) == 5
        assert number not in others
        assert {len(other) for other in others} == {len(number)}
    assert not set(alike("42", frozenset(map(str, range(10, 90))), rng)) & set(map(str, range(10, 90)))


def test_a_sentence_needs_words_before_a_number_that_is_rare():
    text = (
        "The bridge was opened to traffic in 1932 by the mayor. It cost 18 pounds. The old one had stood there for 210 years and 210 days. "
        "Its keeper left a diary of 365 pages.\n"
    )
    assert [one.number for one in stated(text)] == ["1932", "365"]
    assert stated(text * 30) == ()


def test_a_text_without_numbers_is_refused():
    units = Characters()
    space = Space(task="freeform_qa", length=3000, units=units, text=Filler("No number here, and none there.\n" * 900, units))
    with pytest.raises(InputError, match="freeform_qa: the text has 0 sentences that state a rare number, and 4 are to be asked for"):
        TRUE.passage(space)


def test_lengths_share_their_questions():
    assert facts(ALTERED, 12_000) == facts(ALTERED, 40_000)
