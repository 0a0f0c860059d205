"""Every question is asked once, answers become rows at once, and nothing that failed is taken for an answer."""

from dataclasses import replace

import pytest

from longreach.core.errors import InputError, LongreachError, SpecError
from longreach.endpoint.base import ChatModel, Completion
from longreach.endpoint.errors import EndpointError
from longreach.engine.apply import applied
from longreach.evaluation.asking.passage import Response
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.course import Course, take
from longreach.evaluation.evaluate import evaluate, parse_lengths, parse_text_tasks, split_tasks
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Row, Rows
from longreach.evaluation.scoring.judge import Judge, grade_of
from longreach.evaluation.tasks.base import NoRoom
from longreach.evaluation.tasks.benchmarks.leval import LEval
from longreach.evaluation.tasks.retrieval.needle import Needle
from longreach.evaluation.tasks.retrieval.passkey import Passkey
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ROW = Row(task="", model="m", method="", length=0, version="1", settings={"template": "none"})
COURSE = Course(tasks=(Needle(), Passkey()), lengths=(2000, 4000), passages=3, text=real_text(), row=ROW)


class Scripted:
    """Answers by a function of the question, and counts what it is asked; `stops` before that many passages are answered."""

    chooses, at_once = False, 1

    def __init__(self, respond, stops=None):
        self.units, self.respond, self.stops, self.asked, self.passages = Characters(), respond, stops, 0, 0

    def answers(self, passage, *, progress):
        if self.passages == self.stops:
            raise KeyboardInterrupt
        self.passages += 1
        self.asked += len(passage.asks)
        return [self.respond(ask) for ask in passage.asks]


class Choosing(Scripted):
    """Says which choices are likely, too."""

    chooses = True


def knows(ask):
    return Response(written=ask.right)


def test_one_who_knows_gets_all_and_one_who_does_not_nothing():
    known = marks(take(Scripted(knows), COURSE, Rows()).rows)
    assert [(mark.task, mark.length, mark.interval.mean, mark.n) for mark in known] == [
        ("needle", 2000, 1.0, 3), ("needle", 4000, 1.0, 3), ("passkey", 2000, 1.0, 3), ("passkey", 4000, 1.0, 3),
    ]  # fmt: skip
    assert {mark.interval.mean for mark in marks(take(Scripted(lambda ask: Response(written="?")), COURSE, Rows()).rows)} == {0.0}


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        take(Scripted(knows, stops=5), COURSE, Rows(tmp_path / "rows.jsonl"))
    assert len(Rows(tmp_path / "rows.jsonl")) == 5
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"task": "needle", "mod')  # killed while it wrote
    again = Scripted(knows)
    found = take(again, COURSE, Rows(tmp_path / "rows.jsonl"))
    assert again.passages == 12 - 5
    assert len(found.rows) == len(Rows(tmp_path / "rows.jsonl")) == 12
    whole = take(Scripted(knows), COURSE, Rows())
    assert [row.identity for row in found.rows] == [row.identity for row in whole.rows]


def test_what_failed_has_no_score_and_is_asked_again(tmp_path):
    down = take(Scripted(lambda ask: Response(failed="the server is down")), COURSE, Rows(tmp_path / "rows.jsonl"))
    assert len(down.failed) == 12
    assert {row.score for row in down.rows} == {None}
    assert [(mark.n, mark.failed) for mark in marks(down.rows)] == [(0, 3)] * 4
    up = Scripted(knows)
    found = take(up, COURSE, Rows(tmp_path / "rows.jsonl"))
    assert (up.asked, len(found.failed)) == (12, 0)
    last = Scripted(knows)
    assert take(last, COURSE, Rows(tmp_path / "rows.jsonl")).rows == found.rows
    assert last.asked == 0


def test_rows_say_what_determines_a_score_and_what_was_answered():
    course = replace(COURSE, tasks=(Needle(),), lengths=(2000,))
    found = take(
        Choosing(lambda ask: Response(written="It is 5.", likelihoods=tuple(-float(c != ask.right) for c in ask.choices))), course, Rows()
    )
    by_metric = {row.settings["metric"]: row for row in found.rows if row.settings["passage"] == 1}
    assert (by_metric["accuracy"].score, by_metric["likelihood"].score) == (0.0, 1.0)
    assert by_metric["accuracy"].answer == "It is 5."
    assert (by_metric["accuracy"].settings["chance"], by_metric["likelihood"].settings["chance"]) == (0.0, 0.1)
    assert by_metric["accuracy"].depth == 0.25
    assert by_metric["accuracy"].settings["template"] == "none"
    other = take(Scripted(knows), replace(course, seed=1), Rows())
    assert not {row.identity for row in other.rows} & {row.identity for row in found.rows}


def test_lengths_that_hold_no_task_are_told_and_none_at_all_is_refused():
    found = take(Scripted(knows), replace(COURSE, lengths=(300, 2000)), Rows())
    assert list(found.impossible) == [("passkey", 300)]
    assert "passkey needs a length of" in found.impossible["passkey", 300]
    with pytest.raises(NoRoom, match="needle needs a length of"):
        take(Scripted(knows), replace(COURSE, lengths=(50, 60)), Rows())


def test_a_course_has_something_to_ask():
    with pytest.raises(InputError, match="name a task and a length"):
        replace(COURSE, lengths=())
    with pytest.raises(InputError, match="passages=0 must be at least 1"):
        replace(COURSE, passages=0)


def test_a_passage_that_is_too_long_is_a_fault_and_not_cut():
    class TooLong(Needle):
        def passage(self, space):
            made = super().passage(space)
            return replace(made, text=made.text + " and more" * 10)

    with pytest.raises(LongreachError, match="makes a prompt of 20.. characters, and 2000 are asked for"):
        take(Scripted(knows), replace(COURSE, tasks=(TooLong(),)), Rows())


def test_a_model_is_evaluated_under_a_method_and_left_as_it_was():
    model = tiny_model(vocab_size=VOCABULARY)
    given = {"tasks": "needle", "lengths": "256", "passages": 2, "text": real_text()}
    rows = Rows()
    stock = evaluate(model, tokenizer(), **given, rows=rows)
    under = evaluate(model, tokenizer(), method="yarn:factor=auto", **given, rows=rows)
    assert {row.method for row in stock.rows} == {""}
    assert {row.method for row in under.rows} == {"yarn:factor=2"}
    assert applied(model) == ""
    assert {row.length for row in rows} == {256}
    assert len(rows) == 2 * 2 * 2
    assert all(row.settings["prompt"] > 230 and row.settings["weights"] for row in rows)


def test_lists_of_tasks_and_lengths():
    assert split_tasks("needle:digits=7,shared=true,passkey:digits=3, loss+needle") == [
        "needle:digits=7,shared=true", "passkey:digits=3", "loss", "needle",
    ]  # fmt: skip
    assert parse_text_tasks("needle:digits=7,shared=true,passkey") == (Needle(digits=7, shared=True), Passkey())
    assert parse_lengths("1k:6k,300") == (300, 1024, 2048, 4096, 6144)
    for wrong, message in (("needle,needle", "named twice"), ("loss", "loss asks nothing in plain text"), (" ", "no task is named")):
        with pytest.raises(InputError, match=message):
            parse_text_tasks(wrong)
    for wrong in ("4k:1k", "0", "1k:", "x"):
        with pytest.raises((InputError, SpecError)):
            parse_lengths(wrong)


OF_A_FILE = replace(COURSE, tasks=(LEval(),), lengths=(4000,), passages=100)


def test_texts_of_a_file_are_asked_about_once_each_and_the_length_is_their_limit():
    found = take(Scripted(knows), OF_A_FILE, Rows())
    assert {row.settings["passage"] for row in found.rows} == set(range(LEval().available()))
    assert {row.settings["truncated"] for row in found.rows} == {0}
    assert {row.score for row in found.rows} == {1.0}
    assert {mark.metric for mark in marks(found.rows)} >= {"quality/exact_match", "scientific_qa/f1", "gov_report_summ/rouge_2"}


def test_texts_that_are_too_long_are_refused_together_or_cut_and_counted():
    with pytest.raises(NoRoom, match=r"^\d of 8 texts are too long: leval needs a length of \d+ characters .*--truncate"):
        take(Scripted(knows), replace(OF_A_FILE, lengths=(2700,)), Rows())
    rows = [take(Scripted(knows), replace(OF_A_FILE, lengths=(2700,), truncate=side), Rows()).rows for side in ("left", "middle")]
    cut = [[row for row in of if row.settings["truncated"]] for of in rows]
    assert {row.settings["truncate"] for row in cut[0]} == {"left"}
    assert not {row.identity for row in cut[0]} & {row.identity for row in cut[1]}
    assert {row.identity for row in rows[0]} & {row.identity for row in rows[1]}  # what fits is the same however others are cut


class Grader(ChatModel):
    """Says what it is told to say, and counts what it is asked."""

    name = "grader"

    def __init__(self, said):
        self.said, self.asked = said, []

    def ask(self, request):
        self.asked.append(request.messages[0]["content"])
        if isinstance(self.said, EndpointError):
            raise self.said
        return Completion(text=self.said, finish_reason="stop", seconds=0.1)

    def count(self, text):
        return None


@pytest.mark.parametrize(
    ("said", "grade"),
    [
        ("Good.\nGrade: 4", 4), ("**Grade: 5**", 5), ("grade: 1.", 1), ("Grade: 6", None), ("Grade: 3\nOr so.", None), ("4", None),
        ("Grade: 2\nno:\nGrade: 4", None), ("", None), ("Grade: 4/5", None),
    ],
)  # fmt: skip
def test_only_a_last_line_of_the_form_is_a_grade(said, grade):
    assert grade_of(said) == grade


def test_a_judge_marks_free_words_and_is_asked_again_alone_where_it_failed(tmp_path):
    course = replace(OF_A_FILE, tasks=(LEval(evaluated="judged"),))
    silent, answerer = Grader("I would rather not."), Scripted(knows)
    failed = take(answerer, replace(course, judge=Judge(silent)), Rows(tmp_path / "rows.jsonl")).failed
    assert (len(failed), answerer.asked, len(silent.asked)) == (3, 3, 3)
    assert "the judge gave no grade" in failed[0].failed
    assert {row.score for row in failed} == {None}
    down = take(Scripted(knows), replace(course, judge=Judge(Grader(EndpointError("http://j", "is down")))), Rows()).failed
    assert "is down" in down[0].failed
    willing, again = Grader("Fine.\nGrade: 4"), Scripted(knows)
    found = take(again, replace(course, judge=Judge(willing)), Rows(tmp_path / "rows.jsonl"))
    assert (again.asked, len(willing.asked), len(found.failed)) == (0, 3, 0)
    graded = [row for row in found.rows if row.settings["metric"].endswith("/judge")]
    assert [row.score for row in graded] == [0.75] * 3
    assert {row.settings["judge"] for row in graded} == {"grader"}
    assert all(row.answer and row.answer in asked for row, asked in zip(graded, willing.asked, strict=True))
    assert len(take(Scripted(knows), course, Rows(tmp_path / "rows.jsonl")).rows) == 9
