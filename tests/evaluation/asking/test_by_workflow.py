"""A workflow is asked what a model is asked, and what it finds in passages beyond its window is marked by the same rows."""

import re

import pytest

from longreach.core.errors import InputError, SpecError
from longreach.endpoint.base import ChatModel, Completion
from longreach.endpoint.errors import ContextLengthError, EndpointError, UnusableEndpointError
from longreach.evaluation.asking.by_workflow import WorkflowAnswerer
from longreach.evaluation.asking.passage import Ask, Passage, Turn
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.evaluate import evaluate, evaluate_endpoint
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Rows
from longreach.testing.models import tiny_model
from longreach.workflows.base import reading_workflow
from longreach.workflows.wording import ANSWER, NOTHING
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

COURSE = {"tasks": "needle", "lengths": "1200:9600", "passages": 3, "text": real_text()}
WINDOW = 500


class Knowing(ChatModel):
    """Finds the number of the city that is asked for in what it is shown, in a window of tokens of four characters."""

    name, window, fails = "knowing", WINDOW, ()

    def __init__(self):
        self.prompts = []

    def ask(self, request):
        prompt = request.messages[-1]["content"]
        self.prompts.append(prompt)
        if len(self.prompts) in self.fails:
            raise EndpointError("http://x", "busy", status=503)
        if self.count(prompt) + request.most_tokens > self.window:
            raise ContextLengthError("knowing", "too long", limit=self.window)
        (city,) = set(re.findall(r"number for (\S+) that the text", prompt))
        found = re.search(rf"numbers for {city} is: (\d+)|number for {city} is: (\d+)", prompt)
        said = NOTHING if found is None else found[0] if not prompt.rstrip().endswith(ANSWER) else f"It is {found[1] or found[2]}.\nNo."
        return Completion(text=said, finish_reason="stop", completion_tokens=self.count(said), seconds=0.0)

    def count(self, text):
        return -(-len(text) // 4)

    def count_chat(self, messages):
        return sum(self.count(message["content"]) for message in messages) + 2


def scores(found):
    return {mark.length: mark.interval.mean for mark in marks(found.rows)}


def test_what_lies_beyond_the_window_is_found_by_a_workflow_that_reads_all():
    whole = evaluate_endpoint(Knowing(), **COURSE, workflow="map_reduce", more_tokens=16)
    one = evaluate_endpoint(Knowing(), **COURSE, workflow="truncate:keep=start", more_tokens=16)
    assert scores(whole) == {1200: 1.0, 2400: 1.0, 4800: 1.0, 9600: 1.0}
    assert scores(one)[1200] == 1.0 > scores(one)[9600]
    assert all(re.fullmatch(r"It is \d{5}\.", row.answer) for row in whole.rows), "an answer ends with its line"
    assert {(row.settings["metric"], row.settings["workflow"]) for row in whole.rows} == {("accuracy", "map_reduce")}
    assert all(row.tokens_per_s for row in whole.rows)


def test_rows_say_which_workflow_read_and_in_which_window(tmp_path):
    rows = Rows(tmp_path / "rows.jsonl")
    runs = [{"workflow": "rag"}, {"workflow": "rag:order=rank"}, {"workflow": "rag", "window": 400}, {"workflow": "rag", "more_tokens": 8}]
    for run in runs:
        evaluate_endpoint(model := Knowing(), **COURSE | {"lengths": "1200"}, **run, rows=rows)
        assert model.prompts, "answers of another run were taken"
    assert len(rows) == 3 * len(runs)
    assert [row.settings["window"] for row in rows][::3] == [500, 500, 400, 500]
    evaluate_endpoint(model := Knowing(), **COURSE | {"lengths": "1200"}, workflow="rag", rows=Rows(tmp_path / "rows.jsonl"))
    assert not model.prompts


def test_what_fails_is_no_wrong_answer_and_is_asked_again(tmp_path):
    model = Knowing()
    model.fails = (2,)
    course = COURSE | {"lengths": "1200", "workflow": "truncate"}
    first = evaluate_endpoint(model, **course, rows=tmp_path / "rows.jsonl")
    assert [row.failed for row in first.rows] == ["", "http://x: busy", ""]
    assert [row.score for row in first.rows] == [1.0, None, 1.0]
    again = evaluate_endpoint(model := Knowing(), **course, rows=tmp_path / "rows.jsonl")
    assert (len(model.prompts), [row.score for row in again.rows]) == (1, [1.0] * 3)


def test_a_question_that_the_window_has_no_room_for_fails_alone():
    asks = (
        Ask(text="What is the number for Rome that the text has?", right="1"),
        Ask(text="number for Rome that the text " * 70, right="2"),
    )
    passage = Passage(text="The number for Rome is: 12345.", asks=asks)
    told = WorkflowAnswerer(Knowing(), Characters(), reading_workflow("truncate")).answers(passage)
    assert told[0].written.startswith("It is 12345")
    assert "no room" in told[1].failed or "do not fit" in told[1].failed
    assert not told[1].written


def test_an_endpoint_that_nobody_gets_an_answer_from_ends_the_run():
    class Closed(Knowing):
        def ask(self, request):
            raise UnusableEndpointError("http://x", "the key was taken back", status=401)

    with pytest.raises(UnusableEndpointError, match="the key was taken back"):
        evaluate_endpoint(Closed(), **COURSE, workflow="chain")


def test_the_document_says_who_said_what():
    turns = (Turn(role="user", text="Hello"), Turn(role="assistant", text="The number for Rome is: 12345."))
    passage = Passage(text="Thanks.", turns=turns, asks=(Ask(text="What is the number for Rome that the text has?", right="12345"),))
    answerer = WorkflowAnswerer(model := Knowing(), Characters(), reading_workflow("truncate"))
    (told,) = answerer.answers(passage)
    assert told.written.startswith("It is 12345")
    assert "User: Hello\nAssistant: The number for Rome is: 12345.\nThanks." in model.prompts[0]


def test_a_model_in_this_process_gets_the_passages_that_it_would_read_at_once():
    model = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=600)
    course = {"tasks": "needle", "lengths": "900", "passages": 2, "text": real_text(), "unit": "characters"}
    alone, read = evaluate(model, tokenizer(), **course), evaluate(model, tokenizer(), **course, workflow="rag:passages=1")
    inputs = [[row.settings["input"] for row in found.rows if row.settings["metric"] == "accuracy"] for found in (alone, read)]
    assert inputs[0] == inputs[1]
    assert {row.settings["window"] for row in read.rows} == {600}
    assert {row.settings["metric"] for row in read.rows} == {"accuracy"}
    assert "workflow" not in alone.rows[0].settings
    under = evaluate(model, tokenizer(), **course, workflow="rag:passages=1", method="yarn:factor=2")
    assert {(row.method, row.settings["window"]) for row in under.rows} == {("yarn:factor=2", 1200)}


def test_lengths_have_no_limit_but_the_window_is_watched():
    model = tiny_model(vocab_size=VOCABULARY, max_position_embeddings=300)
    with pytest.warns(UserWarning, match="a window of 700 tokens goes beyond the 300"):
        found = evaluate(
            model, tokenizer(), tasks="passkey", lengths="2500", passages=1, workflow="rag:passages=1", window=700, name="tiny"
        )  # fmt: skip
    assert not found.failed
    assert found.rows[0].length == 2500


class Mute(Knowing):
    """Does not say what its window is."""

    window = None


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"window": 300}, InputError, "window has no effect without a workflow"),
        ({"workflow": "rag", "chat": False}, InputError, "chat has no effect with a workflow"),
        ({"workflow": "rga"}, SpecError, "unknown workflow 'rga'; did you mean rag"),
        ({"workflow": "plan_write"}, SpecError, "unknown workflow 'plan_write'"),
        ({"workflow": "rag", "window": 10}, InputError, "window=10 must be at least 64 tokens"),
        ({"workflow": "rag", "more_tokens": -1}, InputError, "more_tokens=-1 must be at least 0"),
        ({"workflow": "rag", "endpoint": Mute()}, InputError, r"knowing does not say .* \(--window\)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(given, error, says):
    model = given.pop("endpoint", None) or Knowing()
    with pytest.raises(error, match=says):
        evaluate_endpoint(model, **COURSE, **given)
    assert not model.prompts


def test_what_makes_no_sense_for_a_model_in_this_process_is_refused():
    for given, says in (
        ({"more_tokens": 3}, "more_tokens has no effect without a workflow"), ({"window": 300}, "window has no effect without a workflow"),
        ({"workflow": "rag", "chat": True}, "chat has no effect with a workflow"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            evaluate(tiny_model(vocab_size=VOCABULARY), tokenizer(), tasks="passkey", lengths="900", **given)
