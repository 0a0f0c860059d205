"""Summaries and expansions are marked by what they cover and how long they are."""

import json

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.records import Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.benchmarks.lcfo import LCFO, nearness
from tests.evaluation.samples import real_text

RECORD = {
    "document": "The mill burned down. " * 50, "summaries": {"20": "A mill burned.", "5": "Fire."},
    "questions": [{"question": "What burned?", "answer": "The mill"}, {"question": "When?", "answer": "at dawn"}],
}  # fmt: skip


def passage(task, length=20_000, number=0, **more):
    return task.passage(
        Space(task=task.spec, length=length, units=Characters(), number=number, text=Filler(real_text(), Characters()), **more)
    )


@pytest.fixture
def records(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(RECORD))
    return Records(tmp_path)


@pytest.mark.parametrize("task", [LCFO(), LCFO(share=10), LCFO(share=5), LCFO(task="expansion")])
def test_as_many_words_as_the_share_says(task):
    made = passage(task)
    (ask,) = made.asks
    wanted = round(len(made.text.split()) * task.ratio)
    assert f"about {wanted} words" in ask.text
    assert task.marks(ask, ask.right) == (1.0, 1.0)
    assert len(ask.right.split()) == wanted
    assert ask.most_tokens * 4 >= 1.2 * task.ratio * len(made.text)  # there is room to write it
    assert passage(task, length=40_000).asks[0].expected["findings"] == ask.expected["findings"]


def test_coverage_counts_findings_with_their_own_numbers_within_about_the_length():
    task = LCFO()
    (ask,) = passage(task).asks
    (name, number), (other, its), *_ = ask.expected["findings"].items()
    assert task.mark(ask, f"{name} had {number}, and {other} {its}.") == 2 / 5
    assert task.mark(ask, f"{name} had {its}, and {other} {number}.") == 0
    assert task.mark(ask, f"{name.upper()}: {number[0]},{number[1:]}") == 1 / 5
    assert task.mark(ask, "word " * 2 * ask.expected["words"] + f"{name} had {number}") == 0
    assert [nearness(count, 100) for count in (0, 25, 100, 400)] == [0, 0.25, 1, 0.25]


def test_documents_of_a_file(records):
    task = LCFO(file=records)
    made = passage(task)
    (ask,) = made.asks
    assert made.text == RECORD["document"]
    assert task.metrics(ask) == ("coverage", "length", "rouge_l")
    assert task.marks(ask, "The mill burned down.") == pytest.approx((0.5, 4 / 40, 2 * 2 / 7))
    assert ask.free
    expansion = LCFO(task="expansion", share=5, file=records)
    made = passage(expansion)
    assert (made.text, made.asks[0].right) == ("Fire.", RECORD["document"])
    assert "about 20 words" in made.asks[0].text
    with pytest.raises(InputError, match="no summary of 10 percent to be written out"):
        passage(LCFO(task="expansion", share=10, file=records))
    with pytest.raises(NoRoom, match="--truncate"):
        passage(task, length=900)
    assert passage(task, length=900, truncate="right").cut > 0
