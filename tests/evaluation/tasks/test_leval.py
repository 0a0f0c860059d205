"""L-Eval is read as its authors publish it, and marked as they mark it."""

import json

import pytest

from longreach.core.errors import InputError, SpecError
from longreach.core.spec import parse
from longreach.evaluation.asking.records import Records
from longreach.evaluation.asking.space import Space
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.benchmarks import _leval_rules as rules
from longreach.evaluation.tasks.benchmarks.leval import LEval, score

DOCUMENT = {
    "input": "word " * 100, "evaluation": "exam", "instructions": ["Which?\nA. this\nB. that", "And?\nA. x\nB. y"], "outputs": ["B", "A"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tpo.jsonl").write_text(json.dumps(DOCUMENT) + "\n\n" + json.dumps(DOCUMENT | {"input": "more " * 300}) + "\n")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "news_summ.jsonl").write_text(
        json.dumps({"input": "news", "evaluation": "rouge", "instructions": ["Sum up."], "outputs": ["one two three"]})
    )
    return tmp_path


def space(task, number=0, length=4000, truncate=None):
    return Space(task=task.spec, length=length, units=Characters(), number=number, truncate=truncate)


@pytest.mark.parametrize(
    ("written", "several", "said"),
    [
        ("B", False, "B"), ("The answer is C.", False, "C"), ("", False, "None"), ("no idea", False, "A"), ("Both", False, "B"),
        ("BD", True, "BD"), ("DB", True, "BD"), ("B) this and D) that", True, "BD"), ("A. one\nC. two\nQuestion 2 B.", True, "AC"),
        ("I think it's CD", True, "CD"), ("none", True, "A"), ("AB", False, "AB"),
    ],
)  # fmt: skip
def test_options_that_an_answer_names(written, several, said):
    assert rules.options_said(written, several=several) == said


@pytest.mark.parametrize(
    ("dataset", "written", "right", "mark"),
    [
        ("quality", "(B) Their", "(B) Their subconscious", 1), ("quality", "C", "(B) Their", 0),
        ("coursera", "B", "BD", 0.25), ("coursera", "BD", "BD", 1), ("coursera", "BCD", "BD", 0), ("coursera", "D and C", "BD", 0.25),
        ("gsm100", "So it is 5.\nThe answer is $1,250.00.", "1250", 1), ("gsm100", "72 - 60 = 12 rolls", "12", 1),
        ("gsm100", "first 12\n\nthen 13", "12", 1), ("gsm100", "none", "12", 0),
        ("codeU", "The final output of the code will be: [6, 15].", "[6 15]", 1), ("codeU", "[7 15]", "[6 15]", 0),
        ("codeU", "the final output is 3.0, as I said before at great length", "3", 1),
        ("topic_retrieval_longchat", 'It was "The Role of Art".', "the role of art", 1),
        ("sci_fi/loyal", "That is untrue; false it is", "True", 1), ("sci_fi/loyal", "False", "True", 0), ("sci_fi/loyal", "?", "True", 0),
    ],
)  # fmt: skip
def test_closed_questions(dataset, written, right, mark):
    assert score(dataset, "exam", written, right) == (mark,)


def test_free_words():
    assert score("nq", "f1", "It was in the year 2018.", "2018") == (pytest.approx(2 * (1 / 5) / (1 / 5 + 1)),)
    assert score("news_summ", "rouge", "one three", "one two three") == pytest.approx((0.8, 0.8, 0.0))


def test_a_file_and_a_folder(folder):
    one, all_of_them = parse(f"leval:file={folder / 'tpo.jsonl'}", acts_on="measurement")[0], LEval(file=Records(folder))
    assert (one.available(), all_of_them.available()) == (2, 3)
    passage = one.passage(space(one))
    assert [ask.right for ask in passage.asks] == ["B", "A"]
    assert passage.asks[0].choices == ("A", "B")
    assert one.metrics(passage.asks[0]) == ("tpo/exact_match",)
    found = [all_of_them.passage(space(all_of_them, number)) for number in range(3)]
    (news,) = [passage.asks[0] for passage in found if passage.text.endswith("news")]
    assert all_of_them.metrics(news) == ("news_summ/rouge_l", "news_summ/rouge_1", "news_summ/rouge_2")
    assert "about 3 words" in news.text
    assert all_of_them.marks(news, "one two three") == (1.0, 1.0, 1.0)


def test_documents_are_cut_at_words_where_the_user_says_so(folder):
    task = LEval(file=Records(folder / "tpo.jsonl"))
    with pytest.raises(NoRoom, match=r"needs a length of \d+ characters .* or cut what is too long \(--truncate\)"):
        [task.passage(space(task, number, length=900)) for number in range(2)]
    for side in ("left", "middle", "right"):
        found = [task.passage(space(task, number, length=900, truncate=side)) for number in range(2)]
        assert all(set(passage.text.split("\n\n")[1].split()) <= {"word", "more"} for passage in found)
        (longer,) = [passage for passage in found if "more" in passage.text]
        head, _, _ = longer.text.partition("\n\n")
        assert longer.cut > 0
        assert len(longer.text) + longer.cut == len(f"{head}\n\n") + len("more " * 300)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "data.jsonl:1 is no JSON"), ("[]", "data.jsonl:1 is no JSON object"),
        (json.dumps(DOCUMENT | {"outputs": ["B"]}), "data.jsonl:1 is no document of L-Eval"),
        (json.dumps(DOCUMENT | {"evaluation": "magic"}), "no such documents"),
    ],
)  # fmt: skip
def test_what_is_no_document(tmp_path, line, message):
    (tmp_path / "data.jsonl").write_text(line)
    task = LEval(file=Records(tmp_path / "data.jsonl"))
    with pytest.raises(InputError, match=message):
        task.passage(space(task))


def test_no_file():
    with pytest.raises(SpecError, match="nowhere is no JSON Lines file"):
        parse("leval:file=nowhere", acts_on="measurement")
