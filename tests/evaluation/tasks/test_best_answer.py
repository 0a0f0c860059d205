"""The piece of a text that goes on from a quotation: whoever knows the text finds it."""

import json
import re

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.reasoning.best_answer import BestAnswer
from tests.evaluation.asked import mean_mark, passage
from tests.evaluation.samples import real_text

QUESTION = {
    "question": "How is a list turned round?", "question_id": 7, "tags": ["python"], "answer": "A3",
    "all_answers": ["Use a loop." * 9, "Sort it twice." * 9, "Call reverse() on it." * 9, "Count down from its length." * 9],
}  # fmt: skip


def finder(text, question):
    quoted = question.split("\n\n", 1)[1].rsplit("\n\n", 1)[0]
    place = real_text().index(quoted) + len(quoted)
    goes_on = real_text()[place:].lstrip()
    pieces = re.split(r"(?:^|\n\n)(A\d{4}):\n", text)[1:]
    (number,) = [label for label, piece in zip(pieces[::2], pieces[1::2], strict=True) if goes_on.startswith(piece.strip())]
    return f"It is number {number}, as far as I can see."


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
