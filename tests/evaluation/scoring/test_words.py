"""Scores by words equal their definitions, written out."""

import random
from collections import Counter
from itertools import combinations

import pytest

from longreach.evaluation.scoring import words
from longreach.evaluation.scoring.edits import edit_distance, edit_similarity
from longreach.evaluation.scoring.numbers import near, numbers_in

ALPHABET = "abcd"


def texts(count, most, seed=0, lines=False):
    chance = random.Random(seed)
    for _ in range(count):
        yield tuple(
            "".join(chance.choice(ALPHABET) + (chance.choice((" ", "\n")) if lines else " ") for _ in range(chance.randint(0, most)))
            for _ in range(2)
        )


def longest(first, second):
    """By trying every subsequence."""
    for size in range(len(first), 0, -1):
        for places in combinations(range(len(first)), size):
            rest = iter(second)
            if all(first[place] in rest for place in places):
                return size
    return 0


def f1(common, written, right):
    return 0.0 if common == 0 else 2 * common / (written + right)


def test_common_subsequence():
    for first, second in texts(60, 8):
        assert words.common_subsequence(first.split(), second.split()) == longest(first.split(), second.split())


def test_rouge_counts_runs_of_words_and_the_longest_subsequence():
    for written, right in texts(40, 9):
        ours, theirs = written.split(), right.split()
        for n in (1, 2):
            runs = [[tuple(side[at : at + n]) for at in range(len(side) - n + 1)] for side in (ours, theirs)]
            left, common = list(runs[1]), 0
            for run in runs[0]:
                if run in left:
                    left.remove(run)
                    common += 1
            assert words.rouge_n(written, right, n) == pytest.approx(f1(common, len(runs[0]), len(runs[1])))
        assert words.rouge_l(written, right) == pytest.approx(f1(longest(ours, theirs), len(ours), len(theirs)))
        assert words.rouge_l_recall(written, right) == (pytest.approx(longest(ours, theirs) / len(theirs)) if theirs else 0)


def test_rouge_words_are_ascii_letters_and_digits():
    assert words.rouge_words("It's 3.5 Cafés!") == ("it", "s", "3", "5", "caf", "s")
    assert words.rouge_l("中文", "中文") == 0.0


def test_rouge_l_sum_takes_lines_together():
    right, written = "the cat sat\non the mat", "on the mat\nthe cat sat"
    assert words.rouge_l_sum(written, right) == 1.0
    assert words.rouge_l(written, right) == 0.5
    for ours, theirs in texts(40, 9):  # of one line each it is ROUGE-L
        assert words.rouge_l_sum(ours, theirs) == pytest.approx(words.rouge_l(ours, theirs))
    for ours, theirs in texts(40, 12, lines=True):  # and no word counts twice
        common = Counter(ours.split()) & Counter(theirs.split())
        assert words.rouge_l_sum(ours, theirs) <= f1(sum(common.values()), len(ours.split()), len(theirs.split())) + 1e-12


def test_normalised_words():
    assert words.same("The answer: Paris.", "answer paris") == 1.0
    assert words.same("a", "b") == 0.0
    assert words.without_articles("The a Cat.") == "The Cat"
    assert words.word_f1("the cat sat sat", "A cat sat") == pytest.approx(2 * 2 / (3 + 2))
    assert words.word_f1("", "cat") == words.word_f1("the", "the") == 0.0
    assert words.characters("你好\uff0cWorld\uff01 ") == ["你", "好", "w", "o", "r", "l", "d"]


def edits(first, second):
    """By the recursive definition."""
    if not first or not second:
        return len(first) + len(second)
    return min(
        edits(first[1:], second) + 1, edits(first, second[1:]) + 1, edits(first[1:], second[1:]) + (first[0] != second[0])
    )  # fmt: skip


def test_edit_distance():
    for first, second in texts(60, 3):
        assert edit_distance(first, second) == edits(first, second) == edit_distance(second, first)
    assert edit_distance("x" * 500, "x" * 300 + "y" * 100) == 200
    assert (edit_similarity("", ""), edit_similarity("ab", ""), edit_similarity("abcd", "abxd")) == (1.0, 0.0, 0.75)


def test_numbers():
    assert numbers_in("x-3, 1,000,000 and (4)-5 but -6") == [3.0, 1_000_000.0, 4.0, 5.0, -6.0]
    assert near("It is 3 or 99.", 100, relative=0.01) == 1.0
    assert near("99.", 100, relative=0.001) == near("none", 1, absolute=5) == near("1e999", 1, absolute=5) == 0.0
    assert near("0.4", 0, absolute=0.5) == 1.0
