"""Pieces of a text and their order: whoever knows the text finds both."""

import json
import re

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.ordering import tsort
from longreach.evaluation.tasks.ordering.best_answer import BestAnswer
from longreach.evaluation.tasks.ordering.tsort import Tsort
from tests.evaluation.asked import mean_mark, passage
from tests.evaluation.samples import real_text

QUESTION = {
    "question": "How is a list turned round?", "question_id": 7, "tags": ["python"], "answer": "A3",
    "all_answers": ["Use a loop." * 9, "Sort it twice." * 9, "Call reverse() on it." * 9, "Count down from its length." * 9],
}  # fmt: skip


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


def finder(text, question):
    quoted = question.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    place = real_text().index(quoted) + len(quoted)
    goes_on = real_text()[place:].lstrip()
    pieces = re.split(r"(?:^|\n\n)(A\d{4}):\n", text)[1:]
    (number,) = [label for label, piece in zip(pieces[::2], pieces[1::2], strict=True) if goes_on.startswith(piece.strip())]
    return f"It is number {number}, as far as I can see."


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


def test_who_knows_the_text_knows_what_goes_on_from_a_quotation():
    assert mean_mark(BestAnswer(), finder) == 1.0


def test_what_stands_beside_the_right_piece_is_a_candidate():
    for ask in passage(BestAnswer()).asks:
        place = real_text().index(ask.evidence[0])
        around = real_text()[max(0, place - 1200) : place], real_text()[place + len(ask.evidence[0]) : place + 1500]
        shown = [piece.strip() for piece in re.split(r"(?:^|\n\n)A\d{4}:\n", passage(BestAnswer()).text)[1:]]
        assert all(any(piece in part for piece in shown) for part in around)


def test_more_candidates_make_a_longer_text_and_chance_smaller():
    short, long = passage(BestAnswer(), 0, 15_000), passage(BestAnswer(), 0, 60_000)
    assert [ask.text for ask in short.asks] == [ask.text for ask in long.asks]
    chances = [BestAnswer().chance(one.asks[0]) for one in (short, long)]
    assert chances[0] > 3 * chances[1] > 0


def of_file(path, length=20_000, number=0):
    task = BestAnswer(file=str(path))
    return task, task.passage(Space(task=task.spec, length=length, units=Characters(), number=number))


def test_a_file_of_the_paper_is_asked_with_as_many_answers_as_fit(tmp_path):
    file = tmp_path / "stackselect_1k.json"
    file.write_text(json.dumps([QUESTION, {**QUESTION, "answer": "A1"}]))
    for number, accepted in ((0, 2), (1, 0), (2, 2)):
        task, made = of_file(file, number=number)
        (ask,) = made.asks
        assert ask.right == f"A{accepted + 1:04}"
        assert QUESTION["question"] in ask.text
        assert made.text.count(":\n") == 4
        assert f"{ask.right}:\n{QUESTION['all_answers'][accepted]}" in made.text
        assert task.chance(ask) == 1 / 4
    _, short = of_file(file, length=780)
    assert short.text.count(":\n") < 4
    assert f"{short.asks[0].right}:\n{QUESTION['all_answers'][2]}" in short.text
    with pytest.raises(NoRoom, match="needs a length of"):
        of_file(file, length=300)


@pytest.mark.parametrize("text", ["no JSON", "[]", '[{"question": "?"}]', '[{"question": "?", "all_answers": ["x", "y"], "answer": "A3"}]'])
def test_another_file_is_refused(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(InputError, match="best_answer takes a file of Ada-LEval"):
        of_file(file)


def test_too_little_text_is_refused():
    with pytest.raises(InputError, match="too short"):
        passage(BestAnswer(), 0, 400_000)
