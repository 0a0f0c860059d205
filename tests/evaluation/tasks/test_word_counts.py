"""Words stand in a list as often as they should, and those that are asked for more often than all others."""

import math
from collections import Counter

import pytest

from longreach.evaluation.tasks.aggregation.word_counts import EXAMPLES, WordCounts, zeta_counts
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

LISTED = WordCounts(words=4, repeats=9, rest=2)
CODED = WordCounts(form="frequent")


def counted(passage):
    return Counter(word for word in passage.partition("\n")[2].split() if word[0].isalpha())


def reading(passage, question):
    count = int(next(word for word in question.split() if word.isdigit()))
    return "\n".join(f"{place}. {word.title()}" for place, (word, _) in enumerate(counted(passage).most_common(count), start=1))


@pytest.mark.parametrize("task", [*EXAMPLES, WordCounts(form="frequent", alpha=4.0)], ids=str)
def test_who_counts_finds_the_words(task):
    assert mean_mark(task, reading, length=30_000) == 1


def test_common_words_stand_there_so_often_and_the_others_so_often():
    passage = made(LISTED)
    counts = counted(passage.text)
    right = set(passage.asks[0].right.split(", "))
    assert {counts[word] for word in right} == {9}
    assert {count for word, count in counts.items() if word not in right} == {2}
    assert passage.text.split("\n")[1].startswith("1. ")


def test_counts_follow_the_zeta_distribution():
    counts = zeta_counts(10_000, 2.0)
    assert counts[:4].tolist() == [int(10_000 / rank**2 / (math.pi**2 / 6)) for rank in (1, 2, 3, 4)]
    assert zeta_counts(10**6, 4.0)[0] == int(10**6 / (math.pi**4 / 90))
    assert counts[-1] == 1
    assert int(10_000 / (len(counts) + 1) ** 2 / (math.pi**2 / 6)) == 0
    found = counted(made(CODED, length=30_000).text)
    assert "...." not in found
    assert [count for _, count in found.most_common()] == zeta_counts(_size(found), 2.0)[1:].tolist()


def _size(found):
    """Of the text whose words were counted: the least with as many words in all."""
    return next(size for size in range(1, 10**5) if zeta_counts(size, 2.0)[1:].sum() == sum(found.values()))


def test_listing_more_words_does_not_pay():
    ask = made(LISTED).asks[0]
    assert LISTED.mark(ask, ask.opening + " " + ask.right.upper()) == 1
    assert LISTED.mark(ask, ", ".join(ask.choices)) == pytest.approx(2 * 4 / (4 + 16))


@pytest.mark.parametrize("task", [LISTED, CODED], ids=str)
def test_lengths_share_their_words(task):
    assert facts(task, 12_000) == facts(task, 100_000)
