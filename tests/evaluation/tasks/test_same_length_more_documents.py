"""Length and places stay, and the number of documents changes."""

import json
import re

import pytest

from longreach.core.errors import InputError, SpecError
from longreach.core.spec import parse
from longreach.evaluation.tasks.reasoning.same_length_more_documents import EXAMPLES, SameLengthMoreDocuments, between
from tests.evaluation.asked import facts, mean_mark
from tests.evaluation.asked import passage as made

_NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+)*"


def reading(passage, question):
    at = re.search(rf"company that ({_NAME}) works for", question)[1]
    steps = [
        rf"{{}} has worked for ({_NAME})",
        rf"head office of {{}} has always been in ({_NAME})",
        rf"town of {{}} lies on the river ({_NAME})",
        rf"river {{}} flows into lake ({_NAME})",
    ]
    for step in steps[: {"In which": 2, "On which": 3, "Into whi": 4}[question[:8]]]:
        at = re.search(step.format(at), passage)[1]
    return f"It is {at}."


@pytest.mark.parametrize("task", EXAMPLES, ids=str)
def test_who_goes_from_document_to_document_finds_the_answer(task):
    assert mean_mark(task, reading) == 1


def test_more_documents_leave_length_places_and_questions_as_they_are():
    few, many = SameLengthMoreDocuments(documents=6), SameLengthMoreDocuments(documents=40)
    for number in range(4):
        one, other = made(few, number), made(many, number)
        assert len(one.text) == pytest.approx(len(other.text), rel=0.01)
        assert len(one.text) == pytest.approx(12_000, rel=0.03)
        assert [(ask.text, ask.choices) for ask in one.asks] == [(ask.text, ask.choices) for ask in other.asks]
        for ask in one.asks:
            for fact in ask.evidence:
                places = [passage.text.index(fact) / len(passage.text) for passage in (one, other)]
                assert places[0] == pytest.approx(places[1], abs=0.08)
        assert [len(re.findall(r"^Document \d+: ", passage.text, re.M)) for passage in (one, other)] == [6, 40]


def test_every_document_has_a_fact_of_its_own_and_the_longest_is_no_giant():
    passage = made(SameLengthMoreDocuments(documents=20), length=60_000)
    documents = re.split(r"^Document \d+: ", passage.text, flags=re.M)[1:]
    said = [re.findall(r" has worked for | has always been in ", document) for document in documents]
    assert all(len(found) == 1 for found in said)
    assert max(map(len, documents)) < 4 * len(passage.text) / 20


def test_places_are_added_where_there_is_most_room():
    assert between([0.2, 0.8], 1) == [0.5]
    assert between([0.1, 0.4], 1) == pytest.approx([0.8])
    assert between([0.2, 0.6], 5)[:3] == between([0.2, 0.6], 3)


def test_the_name_at_the_end_of_another_chain_is_wrong():
    task = SameLengthMoreDocuments()
    ask = made(task).asks[0]
    assert task.mark(ask, f"{ask.expected[-1]} or {ask.right}") == 0
    assert facts(task, 12_000) == facts(task, 40_000)


def musique(folder):
    """Two questions of ten paragraphs, the third and eighth of which they need."""
    rows = []
    for number in range(2):
        paragraphs = [
            {
                "idx": place,
                "title": f"Title {place}",
                "paragraph_text": f"Paragraph {number} {place} says so.",
                "is_supporting": place in (2, 7),
            }
            for place in range(10)
        ]
        rows.append({"question": f"Who of {number}?", "answer": "Ada Lovelace", "answer_aliases": ["Ada King"], "paragraphs": paragraphs})
    path = folder / "musique.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "answerable": False, "question": "Nobody?"}]))
    return path


def test_questions_of_a_file(tmp_path):
    few, many = (
        parse(f"same_length_more_documents:documents={documents},file={musique(tmp_path)}", acts_on="measurement")[0]
        for documents in (3, 10)
    )
    for number in range(4):
        one, other = made(few, number), made(many, number)
        assert one.asks[0].text == other.asks[0].text
        assert "Nobody?" not in one.asks[0].text
        assert len(one.text) == pytest.approx(len(other.text), rel=0.01)
        for passage, documents in ((one, 3), (other, 10)):
            assert passage.text.count("\nDocument ") == passage.text.count(" says so.") == documents
            places = [passage.text.index(text) / len(passage.text) for text in passage.asks[0].evidence]
            assert places == pytest.approx([0.25, 0.75], abs=0.05)
    ask = one.asks[0]
    assert few.mark(ask, "It was Ada King.") == few.mark(ask, "ada lovelace") == 1
    assert few.mark(ask, "Ada Byron") == few.mark(ask, "") == 0


def test_a_file_is_refused_where_it_does_not_fit(tmp_path):
    path = musique(tmp_path)
    for documents in (1, 11):
        with pytest.raises(InputError, match="which has 10 and needs 2 of them"):
            made(SameLengthMoreDocuments(file=path, documents=documents))
    with pytest.raises(SpecError, match="hops=3 has no effect on the questions of a file"):
        SameLengthMoreDocuments(file=path, hops=3)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "Who?"}\n')
    with pytest.raises(InputError, match="line 1: each line has to be a JSON object"):
        made(SameLengthMoreDocuments(file=bad))
