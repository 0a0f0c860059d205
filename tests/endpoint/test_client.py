import pytest

from longreach.core.errors import InputError
from longreach.endpoint.base import Completion, Request, TokenLogprob
from longreach.endpoint.client import Endpoint
from longreach.endpoint.errors import ContextLengthError, EndpointError
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, Clock, endpoint_at


def test_a_chat_is_answered():
    with EndpointServer(lambda body: f"You said {body['messages'][-1]['content']}.") as server, endpoint_at(server) as endpoint:
        answer = endpoint.chat(HELLO, most_tokens=9)
    assert answer == Completion(
        text="You said Hello there.", finish_reason="stop", prompt_tokens=2, completion_tokens=4, seconds=0.0, attempts=1
    )
    (post,) = server.posts
    assert post.path == "/v1/chat/completions"
    assert post.body == {"model": "stub", "messages": list(HELLO), "max_tokens": 9, "temperature": 0.0}
    assert post.headers["user-agent"].startswith("longreach/")
    assert "authorization" not in post.headers


def test_all_settings_are_sent():
    with EndpointServer() as server, endpoint_at(server, model="stub") as endpoint:
        endpoint.chat(HELLO, most_tokens=9, temperature=0.5, seed=7, stop="\n", prefix="It is", logprobs=2)
        endpoint.complete("Once", most_tokens=3, temperature=1, seed=0, stop=("a", "b"), logprobs=0)
    chat, prompt = (post.body for post in server.posts)
    assert chat == {
        "model": "stub", "messages": [*HELLO, {"role": "assistant", "content": "It is"}], "max_tokens": 9, "temperature": 0.5, "seed": 7,
        "stop": ["\n"], "logprobs": True, "top_logprobs": 2, "add_generation_prompt": False, "continue_final_message": True,
    }  # fmt: skip
    assert prompt == {
        "model": "stub", "prompt": "Once", "max_tokens": 3, "temperature": 1.0, "seed": 0, "stop": ["a", "b"], "logprobs": 0,
    }  # fmt: skip


def test_a_prompt_is_completed():
    with EndpointServer(lambda body: f"{body['prompt']} again") as server, endpoint_at(server) as endpoint:
        answer = endpoint.complete("once more", most_tokens=9)
    assert (answer.text, answer.finish_reason, answer.prompt_tokens) == ("once more again", "stop", 2)
    assert server.posts[0].path == "/v1/completions"


def test_an_answer_that_was_cut_says_so():
    with EndpointServer(lambda _: "one two three") as server, endpoint_at(server) as endpoint:
        cut, whole = (endpoint.chat(HELLO, most_tokens=most) for most in (2, 3))
    assert (cut.text, cut.finish_reason, cut.cut) == ("one two", "length", True)
    assert (whole.text, whole.finish_reason, whole.cut) == ("one two three", "stop", False)


@pytest.mark.parametrize("way", ["chat", "complete"])
def test_logprobs_are_given_where_they_are_asked_for(way):
    with EndpointServer(lambda _: "one two") as server, endpoint_at(server) as endpoint:
        ask = getattr(endpoint, way)
        text = HELLO if way == "chat" else "Hello"
        assert ask(text, most_tokens=9).logprobs is None
        assert ask(text, most_tokens=9, logprobs=1).logprobs == (
            TokenLogprob(token="one", logprob=-0.5, top={"one": -0.5}),
            TokenLogprob(token=" two", logprob=-0.5, top={" two": -0.5}),
        )


def test_seconds_are_those_of_the_answer():
    clock = Clock()

    def slow(_):
        clock.time += 2.5
        return "yes"

    with EndpointServer(slow) as server, endpoint_at(server, clock) as endpoint:
        assert endpoint.chat(HELLO, most_tokens=1).seconds == 2.5


def test_the_only_model_is_taken_and_asked_for_once():
    with EndpointServer(models=("org/model-7b",)) as server, endpoint_at(server) as endpoint:
        assert (endpoint.name, endpoint.name) == ("org/model-7b", "org/model-7b")
    assert [each.path for each in server.received] == ["/v1/models"]


@pytest.mark.parametrize(
    ("models", "why"),
    [
        (("a", "b"), r"serves a, b; name one"),
        (tuple(map(str, range(12))), r"serves 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more; name one"),
        ((), "serves no model"),
    ],
)
def test_other_numbers_of_models_are_refused(models, why):
    with EndpointServer(models=models) as server, endpoint_at(server) as endpoint, pytest.raises(InputError, match=why):
        endpoint.chat(HELLO, most_tokens=1)
    assert not server.posts


@pytest.mark.parametrize(("dialect", "tokens"), [("vllm", 3), ("llama.cpp", 3), ("openai", None)])
def test_tokens_are_counted_where_the_server_can(dialect, tokens):
    with EndpointServer(dialect=dialect) as server, endpoint_at(server) as endpoint:
        assert [endpoint.count("one two three") for _ in range(2)] == [tokens, tokens]
    assert {post.path for post in server.posts} == {"/tokenize"}
    assert len(server.posts) == (1 if tokens is None else 2)


def test_a_server_that_cannot_count_now_may_count_later():
    with EndpointServer(dialect="vllm", faults={0: Fault.error(503, "busy")}) as server, endpoint_at(server, retries=0) as endpoint:
        with pytest.raises(EndpointError, match="503: busy"):
            endpoint.count("one")
        assert endpoint.count("one two") == 2


def test_a_text_that_is_too_long_to_be_counted():
    fault = Fault.error(400, "too long", code="context_length_exceeded")
    with EndpointServer(dialect="vllm", faults={0: fault}) as server, endpoint_at(server) as endpoint:
        with pytest.raises(ContextLengthError):
            endpoint.count("one")
        assert endpoint.count("one two") == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"most_tokens": 0}, "most_tokens=0 must be 1 or more"), ({"temperature": -1}, "temperature=-1"),
        ({"temperature": float("nan")}, "temperature=nan"), ({"logprobs": 21}, "logprobs=21 must be between 0 and 20"),
        ({"prompt": "Hello"}, "either messages or a prompt"), ({"messages": ()}, "either messages or a prompt"),
        ({"messages": [{"role": "user"}]}, "a role and a content"),
        ({"messages": (), "prompt": "a", "prefix": "b"}, "at the end of the prompt"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_meant_are_refused(settings, why):
    with pytest.raises(InputError, match=why):
        Request(**{"messages": HELLO, "most_tokens": 1, **settings})


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"retries": -1}, "retries=-1 must be 0 or more"), ({"concurrency": 0}, "concurrency=0 must be 1 or more"),
        ({"timeout": 0}, "timeout=0 must be above 0"), ({"requests_per_minute": -1}, "requests_per_minute=-1 must be above 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, why):
    with pytest.raises(InputError, match=why):
        Endpoint("http://localhost", **settings)
