"""Pieces of a text in their order: whoever knows the text finds it."""

import re

import pytest

from longreach.evaluation.tasks.ordering import tsort
from longreach.evaluation.tasks.ordering.tsort import Tsort
from tests.evaluation.asked import mean_mark, passage
from tests.evaluation.samples import real_text


def segments(text):
    return re.split(r"\n\nSegment \d:\n", text.split("\n\nAfter the segments:\n")[0])[1:]


def sorter(text, question):
    before = text.removeprefix("Before the segments:\n").split("\n\nSegment 1:\n")[0]
    for found in re.finditer(re.escape(before), real_text()):  # some topics stand there twice
        book = real_text()[found.end() : found.end() + len(text)]
        places = [book.find(segment.strip()) for segment in segments(text)]
        if min(places) >= 0:
            order = sorted(range(len(places)), key=places.__getitem__)
            return f"I think that they were written in this order: {', then '.join(str(place + 1) for place in order)}"
    raise AssertionError("this is not from the text")


@pytest.mark.parametrize("task", tsort.EXAMPLES, ids=str)
def test_who_knows_the_text_knows_its_order(task):
    assert mean_mark(task, sorter) == 1.0
    assert mean_mark(task, lambda text, question: "[1, 2, 3, 4, 5]") == 0.0


@pytest.mark.parametrize("length", [3000, 100_000])
def test_segments_are_one_stretch_of_text_and_about_equal(length):
    task, shares = Tsort(), []
    for number in range(3):
        parts = segments(passage(task, number, length).text)
        size = sum(map(len, parts)) / len(parts)
        shares += [len(part) / size for part in parts]
        assert len(parts) == 4
    assert all(0.7 < share < 1.3 for share in shares)


def test_only_one_whole_order_is_right():
    task = Tsort()
    ask = passage(task).asks[0]
    digits = re.findall(r"\d", ask.right)
    assert task.mark(ask, f"Answer: {' > '.join(digits)}") == 1.0
    assert task.mark(ask, "Segment " + ", then segment ".join(digits)) == 1.0
    assert task.mark(ask, f"not [1, 2, 3, 4] but\nAnswer: {ask.right}") == 1.0
    assert task.mark(ask, f"[1, 2, 3, 4] or {ask.right}") == 0.0
    assert task.mark(ask, f"[{', '.join(digits[:-1])}]") == 0.0
    assert (task.chance(ask), len(ask.choices)) == (1 / 24, 24)
