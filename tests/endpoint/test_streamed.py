"""Long answers come in parts, and are the same as at once."""

import json

import pytest

from longreach.endpoint.errors import EndpointError
from longreach.endpoint.streamed import put_together
from longreach.endpoint.wire import completion_of
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, endpoint_at

LONG = "one two three, four " * 40


def lines(*events, done=True):
    return [f"data: {json.dumps(event)}" for event in events] + ["data: [DONE]"] * done


def delta(**said):
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


@pytest.mark.parametrize("chat", [True, False])
def test_a_long_answer_is_that_which_comes_at_once(chat):
    with EndpointServer(lambda _: LONG) as server, endpoint_at(server) as endpoint:
        ask = (lambda most: endpoint.chat(HELLO, most_tokens=most)) if chat else (lambda most: endpoint.complete("Hello", most_tokens=most))
        parts, whole = ask(256), ask(255)
    assert [post.body.get("stream") for post in server.posts] == [True, None]
    for answer in (parts, whole):
        assert (answer.text, answer.finish_reason, answer.completion_tokens) == (LONG, "stop", 160)
    assert parts.prompt_tokens == whole.prompt_tokens


def test_a_long_answer_that_is_cut_says_so():
    with EndpointServer(lambda _: LONG * 10) as server, endpoint_at(server) as endpoint:
        assert endpoint.chat(HELLO, most_tokens=300).cut


@pytest.mark.parametrize("field", ["stream", "stream_options"])
def test_a_server_that_gives_no_parts_is_asked_for_the_whole(field):
    with EndpointServer(lambda _: LONG, refuses=(field,)) as server, endpoint_at(server) as endpoint:
        answers = [endpoint.chat(HELLO, most_tokens=300) for _ in range(2)]
    assert [answer.attempts for answer in answers] == [2, 1]
    assert [bool(post.body.get("stream")) for post in server.posts] == [True, False, False]


def test_an_answer_that_breaks_off_is_asked_for_again():
    with EndpointServer(lambda _: LONG, faults={0: Fault(cut=True)}) as server, endpoint_at(server) as endpoint:
        answer = endpoint.chat(HELLO, most_tokens=300)
    assert (answer.attempts, answer.text.split()) == (2, LONG.split())


def test_an_answer_that_always_breaks_off_is_an_error():
    with (
        EndpointServer(lambda _: LONG, faults=lambda _: Fault(cut=True)) as server,
        endpoint_at(server) as endpoint,
        pytest.raises(EndpointError, match="the answer broke off"),
    ):
        endpoint.chat(HELLO, most_tokens=300)


def test_reasoning_and_logprobs_add_up():
    token = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -0.5}]}
    events = [
        delta(role="assistant", reasoning_content="let me "),
        delta(reasoning="see"),
        {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token]}}]},
        {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}},
    ]
    answer = completion_of(put_together([": ping", "", "event: x", *lines(*events)]), 1.0)
    assert (answer.text, answer.reasoning, answer.completion_tokens) == ("aa", "let me see", 2)
    assert [each.token for each in answer.logprobs] == ["a", "a"]


def test_logprobs_of_completions_add_up():
    part = {"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]}, "finish_reason": None}
    answer = completion_of(put_together(lines({"choices": [part]}, {"choices": [{**part, "finish_reason": "length"}]})), 1.0)
    assert (answer.text, answer.cut, [each.logprob for each in answer.logprobs]) == ("aa", True, [-1.0, -1.0])


def test_an_end_without_a_word_or_a_reason_counts_as_an_end_where_one_is_there():
    assert put_together(lines(delta(content="a"), done=False)) is None
    assert put_together(lines(delta(content="a")))["choices"][0]["message"]["content"] == "a"
    assert put_together(lines({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}, done=False)) is not None


def test_an_error_among_the_parts_is_the_reply():
    assert put_together(lines(delta(content="a"), {"error": {"message": "out of memory"}})) == {"error": {"message": "out of memory"}}


@pytest.mark.parametrize("line", ["data: {", "data: []", "data: 3"])
def test_parts_that_are_nonsense_raise(line):
    with pytest.raises(ValueError, match=r".+"):
        put_together([line])
