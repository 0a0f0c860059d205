"""Short texts of the user's become long ones, and pass what every task has to pass."""

import json
import re

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.records import Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.benchmarks.m4le import M4LE
from longreach.testing.conformance import text_tasks as suite
from tests.evaluation.samples import real_text

LABELS = ("travel", "sport", "food")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    path = tmp_path_factory.mktemp("m4le") / "news.jsonl"
    lines = [
        {"text": f"Item {n} tells of {LABELS[n % 3]} at some length, with {n * 37 % 101} details.\n" * 3, "label": LABELS[n % 3]}
        for n in range(600)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    path = tmp_path_factory.mktemp("m4le") / "questions.jsonl"
    lines = [
        {
            "context": f"The keeper of tower {n} is called Name{n * 7}. " * 4,
            "question": f"Who keeps tower {n}?",
            "answers": [f"Name{n * 7}"],
        }
        for n in range(300)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def passage(task, number=0, length=5000):
    return task.passage(Space(task=task.spec, length=length, units=Characters(), number=number, text=Filler(real_text(), Characters())))


@pytest.mark.parametrize("span", ["explicit_single", "semantic_single", "explicit_multiple", "semantic_multiple", "global"])
def test_labelled_texts(labelled, span):
    task = M4LE(span=span, file=Records(labelled))
    for check in (suite.check_length, suite.check_right_answers, suite.check_chance, suite.check_junk, suite.check_evidence):
        assert check(task)
    for number in range(4):
        made = passage(task, number)
        (ask,) = made.asks
        labels = dict(re.findall(r"^([0-9a-f]{6}): Item \d+ tells of (\w+)", made.text, re.MULTILINE))
        category = re.search(r"category (\w+)", ask.text)
        if span == "explicit_single":
            assert ask.right == labels[re.search(r"text ([0-9a-f]{6})", ask.text)[1]]
        elif span == "semantic_multiple":
            assert int(ask.right) == list(labels.values()).count(category[1])
        elif span == "global":
            assert set(labels.values()) == {ask.right}
        else:
            assert {name for name, label in labels.items() if label == category[1]} == set(ask.expected["right"])


@pytest.mark.parametrize("span", ["explicit_single", "semantic_single"])
def test_texts_with_questions(asked, span):
    task = M4LE(span=span, file=Records(asked))
    for check in (suite.check_length, suite.check_right_answers, suite.check_junk, suite.check_evidence, suite.check_forgetting):
        assert check(task)
    (ask,) = passage(task).asks
    assert task.mark(ask, f"It is {ask.right.upper()}.") == 1.0


def test_paragraphs_of_real_text():
    for number in range(5):
        single, both = (passage(M4LE(span=span), number, 9000) for span in ("semantic_single", "semantic_multiple"))
        flat = re.sub(r"\s+", " ", real_text())
        for made in (single, both):
            before = made.asks[0].text.split("\n\n")[1:]
            after = [part.partition(": ")[2] for part in made.asks[0].evidence]
            for one, other in zip(before, after, strict=True):
                assert flat.find(other) - flat.find(one) > 0
        words = passage(M4LE(span="explicit_multiple"), number, 9000)
        word = re.search('"(.*)"', words.asks[0].text)[1]
        having = re.findall(rf"^([0-9a-f]{{6}}): .*\b{word}\b", words.text, re.MULTILINE | re.IGNORECASE)
        assert set(having) == set(words.asks[0].expected["right"])


def test_what_is_missing_is_told(labelled, asked, tmp_path):
    with pytest.raises(InputError, match="needs texts with labels, and those of the file have questions"):
        passage(M4LE(span="global", file=Records(asked)))
    with pytest.raises(InputError, match="too few texts for 500000 characters"):
        passage(M4LE(file=Records(labelled)), length=500_000)
    for line, message in (
        ({"text": "a"}, "has neither text and label, nor context, question and answer"),
        ({"text": "a", "label": "b"}, "texts need two labels at least, or questions"),
    ):
        (tmp_path / "a.jsonl").write_text(json.dumps(line))
        with pytest.raises(InputError, match=message):
            passage(M4LE(file=Records(tmp_path / "a.jsonl")))
