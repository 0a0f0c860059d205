"""Files of one's own are asked as they are, or at any length, and marked as they say."""

import json

import pytest

from longreach.core.errors import InputError
from longreach.evaluation.asking.filler import Filler
from longreach.evaluation.asking.records import Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.documents.own_questions import OwnQuestions
from tests.evaluation.samples import real_text

BRIDGE = {"text": "The bridge was opened in 1932.", "question": "When was the bridge opened?", "answer": "1932"}
KEEPER = {"text": "The bridge was opened in 1932.", "question": "What was opened?", "answers": ["the bridge", "a bridge"]}
MILL = {"context": "The mill burnt down.", "question": "What burnt down?", "answer": "the mill", "choices": ["the mill", "the barn"]}


@pytest.fixture
def own(tmp_path):
    def written(*lines, **settings):
        path = tmp_path / "own.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)))
        return OwnQuestions(file=Records(path), **settings)

    return written


def passages(task, length=3000):
    text = Filler(real_text(), Characters())
    return [
        task.passage(Space(task=task.spec, length=length, units=Characters(), number=number, text=text))
        for number in range(task.available())
    ]


def test_lines_of_one_text_are_one_document(own):
    found = sorted(passages(own(BRIDGE, MILL, KEEPER)), key=lambda passage: len(passage.asks))
    assert [len(passage.asks) for passage in found] == [1, 2]
    assert found[1].text.endswith("\n\nThe bridge was opened in 1932.")
    assert [ask.text for ask in found[1].asks] == [BRIDGE["question"], KEEPER["question"]]
    assert found[0].asks[0].text == "What burnt down?\nChoose one of these: the mill; the barn."


def test_a_document_is_set_among_real_text(own):
    documents = [{**BRIDGE, "text": f"Bridge {n} was opened in 1932."} for n in range(5)]
    for passage in passages(own(*documents, fill=True)):
        (ask,) = passage.asks
        place = passage.text.index(ask.evidence[0]) / (len(passage.text) - len(ask.evidence[0]))
        assert place == pytest.approx(ask.depth, abs=0.1)
    assert sorted(passage.asks[0].depth for passage in passages(own(*documents, fill=True))) == [0.0, 0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize(
    ("score", "written", "marks"),
    [
        ("contains", "It was opened in 1932, I think.", (1.0,)),
        ("contains", "It was opened in 19321.", (0.0,)),
        ("exact", "1932.", (1.0,)),
        ("exact", "in 1932", (0.0,)),
        ("f1", "in 1932", (2 / 3, 0.0)),
        ("f1", "The 1932", (1.0, 1.0)),
        ("rouge", "in 1932", (2 / 3, 2 / 3, 0.0)),
    ],
)
def test_scores(own, score, written, marks):
    task = own(BRIDGE, scoring=score)
    (ask,) = passages(task)[0].asks
    assert task.marks(ask, written) == pytest.approx(marks)
    assert len(task.metrics(ask)) == len(marks)


def test_the_best_of_several_answers_counts(own):
    task = own(KEEPER, scoring="f1")
    (ask,) = passages(task)[0].asks
    assert task.marks(ask, "a bridge") == (1.0, 1.0)


def test_an_answer_that_is_an_article_is_looked_for_as_it_is(own):
    task = own({**BRIDGE, "answer": "The"})
    (ask,) = passages(task)[0].asks
    assert (task.mark(ask, "The"), task.mark(ask, "1932")) == (1.0, 0.0)


def test_choices_are_told_from_naming_all_of_them(own):
    task = own(MILL, scoring="f1")
    (ask,) = passages(task)[0].asks
    assert (task.mark(ask, "It was the mill."), task.mark(ask, "the barn"), task.mark(ask, "the mill or the barn")) == (1.0, 0.0, 0.0)
    assert (task.chance(ask), task.metrics(ask)) == (0.5, ("accuracy",))


@pytest.mark.parametrize(
    ("written", "mark"),
    [
        ("def double(x):\n    return 2 * x", 1.0),
        ("Here it is:\n```python\ndef double(x):\n    return x + x\n```\nIt adds.", 1.0),
        ("def double(x):\n    return x", 0.0),
        ("def double(x):\n    while True: pass", 0.0),
        ("I cannot.", 0.0),
        ("", 0.0),
    ],
)
def test_programs_have_to_pass_their_tests(own, written, mark):
    line = {
        "text": "double(x) is twice x.",
        "question": "Write it.",
        "answer": "double = lambda x: 2 * x",
        "tests": "assert double(4) == 8",
    }
    task = own(line, scoring="code")
    (ask,) = passages(task)[0].asks
    assert task.mark(ask, written) == mark


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"question": "Who?", "answer": "me"}, "own.jsonl:1 has no `text`"),
        ({"text": "It was me.", "answer": "me"}, "own.jsonl:1 has no `question`"),
        ({"text": "It was me.", "question": "Who?"}, "own.jsonl:1 has no `answer`"),
        ({"text": "It was me.", "question": "Who?", "answers": []}, "own.jsonl:1 has no `answer`"),
        ({"text": "It was me.", "question": "Who?", "answer": 3}, "own.jsonl:1 has no `answer`"),
        ({**MILL, "choices": "the mill"}, "`choices` has to be a list"),
        ({**MILL, "answer": "the pub"}, "'the pub' is not among its choices"),
        ({**MILL, "choices": ["the mill", "The Mill"]}, "two of its choices are the same"),
    ],
)
def test_a_line_that_is_no_question_is_refused(own, line, message):
    with pytest.raises(InputError, match=message):
        own(line).available()


def test_programs_need_tests(own):
    with pytest.raises(InputError, match="own.jsonl:1 has no `tests`"):
        own(BRIDGE, scoring="code").available()


def test_a_document_that_is_too_long_says_what_it_needs(own):
    long = {**BRIDGE, "text": BRIDGE["text"] * 400}
    for fill in (False, True):
        with pytest.raises(NoRoom, match="needs a length of 1"):
            passages(own(long, fill=fill))


def test_an_empty_file_is_refused(own):
    with pytest.raises(InputError, match="has no lines"):
        own().available()
