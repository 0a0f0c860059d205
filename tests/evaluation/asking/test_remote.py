"""An endpoint gets the passages that a model in this process gets, and what fails there is no answer."""

import threading

import pytest

from longreach.core.errors import InputError
from longreach.endpoint.client import Endpoint
from longreach.endpoint.errors import UnusableEndpointError
from longreach.endpoint.recording import Recording
from longreach.evaluation.asking.form import Form
from longreach.evaluation.asking.passage import Ask, Passage, Turn
from longreach.evaluation.asking.remote import EndpointAnswerer
from longreach.evaluation.asking.units import Characters
from longreach.evaluation.evaluate import evaluate, evaluate_endpoint
from longreach.evaluation.marks import marks
from longreach.evaluation.rows import Rows
from longreach.testing.endpoint_server import EndpointServer, Fault
from longreach.testing.models import tiny_model
from tests.evaluation.samples import VOCABULARY, real_text, tokenizer

ASKS = (Ask(text="Which?", opening="It is", right="this", until=("\n", "STOP")), Ask(text="What then?", right="that", most_tokens=3))
PASSAGE = Passage(text="A text.", asks=ASKS, turns=(Turn(role="user", text="Hello"), Turn(role="assistant", text="Yes?")))
COURSE = {"tasks": "needle", "lengths": "900:1800", "passages": 4, "text": real_text()}


def reader(body):
    """Reads the number of the city that is asked for."""
    prompt = body["messages"][-1]["content"]
    city = prompt.rsplit("number for ", 1)[1].split()[0]
    return f"It is {prompt.split(f'numbers for {city} is: ')[1][:5]}, I think.\nBut 77777"


def test_chats_and_prompts_are_what_a_model_reads():
    with EndpointServer(lambda body: "\n this STOP and more\n") as server, Endpoint(server.url, retries=0) as endpoint:
        chat = EndpointAnswerer(endpoint, Characters()).answers(PASSAGE)
        plain = EndpointAnswerer(endpoint, Characters(), chat=False).answers(PASSAGE)
    assert [one.written for one in chat] == ["\n this ", "\n this STOP and"], "to the stop, and to the most tokens"
    assert [one.written for one in plain] == [one.written for one in chat]
    asked = "A text.\n\nWhat then?"
    bodies = sorted((post.body for post in server.posts), key=lambda body: ("prompt" in body, body["max_tokens"]))
    assert bodies[0]["messages"] == [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": asked},
    ]  # fmt: skip
    assert bodies[0]["temperature"] == 0
    assert bodies[3]["prompt"] == "User: Hello\nAssistant: Yes?\nA text.\n\nWhich?\nIt is"
    form = Form(tokenizer(), chat=False)
    ids = [*form.before_ids(PASSAGE.turns), *form.passage_ids(PASSAGE.text), *form.ask_ids(ASKS[0])]
    assert form.tokenizer.decode(ids, skip_special_tokens=True) == bodies[3]["prompt"]


def test_one_who_reads_gets_all(tmp_path):
    with EndpointServer(reader) as server, Endpoint(server.url) as endpoint:
        found = evaluate_endpoint(endpoint, **COURSE, rows=tmp_path / "rows.jsonl")
    assert [(mark.length, mark.interval.mean, mark.n) for mark in marks(found.rows)] == [(900, 1.0, 4), (1800, 1.0, 4)]
    assert {row.model for row in found.rows} == {"stub"}
    assert {row.settings["units"] for row in found.rows} == {"characters"}
    lengths = sorted(len(post.body["messages"][0]["content"]) for post in server.posts)
    assert lengths[3] <= 900 < lengths[4] <= lengths[-1] <= 1800


def test_in_characters_a_model_and_an_endpoint_get_the_same_passages():
    with EndpointServer(reader) as server, Endpoint(server.url) as endpoint:
        remote = evaluate_endpoint(endpoint, **COURSE)
    here = evaluate(tiny_model(vocab_size=VOCABULARY), tokenizer(), **COURSE, unit="characters")
    inputs = [{row.settings["input"] for row in found.rows} for found in (remote, here)]
    assert inputs[0] == inputs[1]


def test_tokens_of_a_tokenizer_leave_room_for_a_template_and_for_thinking():
    with EndpointServer(reader) as server, Endpoint(server.url) as endpoint:
        evaluate_endpoint(endpoint, **{**COURSE, "lengths": "500"}, tokenizer=tokenizer(), more_tokens=100)
    used = [len(tokenizer()(post.body["messages"][0]["content"])["input_ids"]) + post.body["max_tokens"] for post in server.posts]
    assert {post.body["max_tokens"] for post in server.posts} == {112}
    assert all(440 < each <= 500 - 30 for each in used)


def test_what_fails_is_told_and_asked_again(tmp_path):
    faults = {
        1: Fault.error(400, "no such thing"),
        3: Fault.error(400, "maximum context length is 90 tokens", code="context_length_exceeded"),
    }
    with EndpointServer(reader, faults=faults) as server, Endpoint(server.url, concurrency=1) as endpoint:
        first = evaluate_endpoint(endpoint, **COURSE, rows=Rows(tmp_path / "rows.jsonl"))
        assert len(first.failed) == 2
        assert sorted("no such thing" in row.failed for row in first.failed) == [False, True]
        asked = len(server.posts)
        again = evaluate_endpoint(endpoint, **COURSE, rows=Rows(tmp_path / "rows.jsonl"))
        assert len(server.posts) == asked + 2
    assert not again.failed
    assert {row.score for row in again.rows} == {1.0}


def test_an_endpoint_that_nobody_gets_an_answer_from_ends_the_run_and_keeps_what_was_answered(tmp_path):
    def faults(number):
        return Fault.error(401, "the key was taken back") if number >= 3 else None

    server = EndpointServer(reader, faults=faults)
    with server, Endpoint(server.url, concurrency=1) as endpoint, pytest.raises(UnusableEndpointError, match="the key was taken back"):
        evaluate_endpoint(endpoint, **COURSE, rows=tmp_path / "rows.jsonl")
    assert len(Rows(tmp_path / "rows.jsonl")) == 3


def test_passages_are_asked_about_at_once():
    together = threading.Barrier(3, timeout=10)

    def answer(body):
        together.wait()
        return reader(body)

    with EndpointServer(answer) as server, Endpoint(server.url, concurrency=3) as endpoint:
        found = evaluate_endpoint(endpoint, **{**COURSE, "passages": 3})
    assert server.most_at_once == 3
    assert [row.settings["passage"] for row in found.rows] == [0, 1, 2, 0, 1, 2]


def test_a_recording_answers_offline(tmp_path):
    with EndpointServer(reader) as server, Endpoint(server.url) as endpoint:
        online = evaluate_endpoint(Recording(tmp_path / "calls.jsonl", endpoint), **COURSE)
    offline = evaluate_endpoint(Recording(tmp_path / "calls.jsonl"), **COURSE)
    assert [(row.score, row.answer) for row in offline.rows] == [(row.score, row.answer) for row in online.rows]


def test_a_number_that_cannot_be_meant_is_refused():
    with pytest.raises(InputError, match="more_tokens=-1 must be at least 0"):
        EndpointAnswerer(Endpoint("http://127.0.0.1:1"), Characters(), more_tokens=-1)
