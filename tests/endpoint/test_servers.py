import pytest

from longreach.endpoint.errors import EndpointError
from longreach.endpoint.wire import completion_of
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, endpoint_at


def test_newer_models_take_another_name_for_the_most_tokens():
    with EndpointServer(lambda _: "one two", refuses=("max_tokens",)) as server, endpoint_at(server) as endpoint:
        answers = [endpoint.chat(HELLO, most_tokens=1) for _ in range(2)]
        with pytest.raises(EndpointError, match="'max_tokens' is not supported"):  # completions have no other name for it
            endpoint.complete("Hello", most_tokens=1)
    assert [(answer.text, answer.attempts) for answer in answers] == [("one", 2), ("one", 1)]
    sent = [[name for name in post.body if "max" in name] for post in server.posts]
    assert sent == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"], ["max_tokens"]]


def test_models_that_take_no_temperature_are_asked_without_and_that_is_told_once():
    with (
        EndpointServer(refuses=("temperature", "max_tokens")) as server,
        endpoint_at(server) as endpoint,
        pytest.warns(UserWarning, match="stub takes no temperature; it samples at its own") as warned,
    ):
        answers = [endpoint.chat(HELLO, most_tokens=1) for _ in range(2)]
    assert len(warned) == 1
    assert [answer.attempts for answer in answers] == [3, 1]
    assert "temperature" not in server.posts[-1].body


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.", {}),
        ("Unrecognized request argument supplied: max_tokens", {}),
        ("Unsupported parameter", {"param": "max_tokens"}),
    ],
)
def test_the_message_or_the_parameter_names_the_field(message, more):
    with EndpointServer(faults={0: Fault.error(400, message, **more)}) as server, endpoint_at(server) as endpoint:
        assert endpoint.chat(HELLO, most_tokens=1).attempts == 2
    assert "max_completion_tokens" in server.posts[1].body


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("max_tokens is too large: 5000. This model supports at most 4096 completion tokens.", {"param": "max_tokens"}),
        ("Unsupported parameter: 'top_k'", {"param": "top_k", "code": "unsupported_parameter"}),
        ("Unknown parameter: 'max_completion_tokens'", {}),
    ],
)
def test_other_complaints_change_nothing(message, more):
    with EndpointServer(faults={0: Fault.error(400, message, **more)}) as server, endpoint_at(server) as endpoint:
        with pytest.raises(EndpointError):
            endpoint.chat(HELLO, most_tokens=1)
        endpoint.chat(HELLO, most_tokens=1)
    assert [list(post.body) for post in server.posts] == [["model", "messages", "max_tokens", "temperature"]] * 2


def test_a_field_is_given_up_once():
    refusal = Fault.error(400, "Unsupported parameter: 'max_tokens'", param="max_tokens", code="unsupported_parameter")
    with EndpointServer(faults=lambda _: refusal) as server, endpoint_at(server) as endpoint, pytest.raises(EndpointError) as caught:
        endpoint.chat(HELLO, most_tokens=1)
    assert caught.value.attempts == len(server.posts) == 2


def test_a_server_that_cannot_go_on_from_a_prefix_says_so():
    with (
        EndpointServer(refuses=("continue_final_message",)) as server,
        endpoint_at(server) as endpoint,
        pytest.raises(EndpointError, match="does not go on from the beginning of an answer; leave out prefix") as caught,
    ):
        endpoint.chat(HELLO, most_tokens=1, prefix="It is")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("message", "text", "reasoning"),
    [
        ({"content": "4", "reasoning_content": "2 and 2"}, "4", "2 and 2"),
        ({"content": "4", "reasoning": "2 and 2"}, "4", "2 and 2"),
        ({"content": None, "reasoning_content": "2 and"}, "", "2 and"),
        ({"content": None, "refusal": "I cannot."}, "I cannot.", ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"}]}, "ab", ""),
        ({"content": ""}, "", ""),
        ({"tool_calls": []}, "", ""),
    ],
)
def test_messages_have_many_forms(message, text, reasoning):
    with EndpointServer(lambda _: message) as server, endpoint_at(server) as endpoint:
        answer = endpoint.chat(HELLO, most_tokens=9)
    assert (answer.text, answer.reasoning) == (text, reasoning)


def test_what_a_server_does_not_count_is_not_known():
    reply = {"choices": [{"message": {"content": "a"}}], "error": None, "usage": None}
    with EndpointServer(faults={0: Fault(body=reply)}) as server, endpoint_at(server) as endpoint:
        answer = endpoint.chat(HELLO, most_tokens=9, logprobs=0)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.finish_reason, answer.logprobs) == (None, None, None, None)


def test_logprobs_that_are_no_numbers_are_none():
    body = '{"choices": [{"text": "a", "logprobs": {"tokens": ["a", "b"], "token_logprobs": [null, -Infinity]}}]}'
    with EndpointServer(faults={0: Fault(body=body)}) as server, endpoint_at(server) as endpoint:
        answer = endpoint.complete("Hello", most_tokens=9, logprobs=0)
    assert [(each.token, each.logprob) for each in answer.logprobs] == [("a", None), ("b", None)]


def test_lone_surrogates_go_through():
    said = [{"role": "user", "content": "half \ud83d of it, and é"}]
    with EndpointServer(lambda body: body["messages"][0]["content"]) as server, endpoint_at(server) as endpoint:
        assert endpoint.chat(said, most_tokens=99).text == said[0]["content"]


def test_a_choice_without_a_text_is_no_completion():
    assert completion_of({"choices": [{"index": 0}]}, 1.0) is None
    assert completion_of({"choices": [None]}, 1.0) is None
    assert completion_of({"choices": {"text": "a"}}, 1.0) is None
