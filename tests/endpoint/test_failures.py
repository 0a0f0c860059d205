import random
import threading

import pytest

from longreach.core.errors import LongreachError
from longreach.endpoint.errors import LONGEST_MESSAGE, ContextLengthError, EndpointError, UnusableEndpointError
from longreach.endpoint.pacing import backoff, retry_after
from longreach.testing.endpoint_server import EndpointServer, Fault
from tests.endpoint.clock import HELLO, Clock, endpoint_at


def outcome(faults, *, retries=6, **settings):
    """The answer or the error of one chat with a server that has such faults, how often it was asked, and the waits."""
    clock = Clock()
    with EndpointServer(faults=faults, **settings) as server, endpoint_at(server, clock, model="stub", retries=retries) as endpoint:
        try:
            result = endpoint.chat(HELLO, most_tokens=1)
        except EndpointError as error:
            result = error
    if isinstance(result, EndpointError):
        assert str(result).startswith(f"{server.url}: {result.message}")
        assert result.url == server.url
    assert result.attempts == len(server.posts)
    return result, len(server.posts), clock.slept


def always(fault):
    return lambda _: fault


def test_nobody_listens():
    with EndpointServer() as server:
        pass
    clock = Clock()
    with endpoint_at(server, clock) as endpoint, pytest.raises(UnusableEndpointError) as caught:
        endpoint.chat(HELLO, most_tokens=1)
    assert (
        str(caught.value)
        == f"{server.url}: cannot be reached: Connection refused; is the server running, and is this its address? (3 tries)"
    )
    assert (caught.value.status, caught.value.attempts) == (None, 3)
    assert clock.slept == [0.75, 1.5]


def test_a_server_that_is_too_slow():
    release = threading.Event()
    clock = Clock()
    with (
        EndpointServer(faults=always(Fault(until=release))) as server,
        endpoint_at(server, clock, model="stub", timeout=0.01) as endpoint,
        pytest.raises(EndpointError, match=r"no answer within 0.01 s; give it a longer timeout \(3 tries\)") as caught,
    ):
        endpoint.chat(HELLO, most_tokens=1)
    assert type(caught.value) is EndpointError
    assert clock.slept == [0.75, 1.5]


def test_what_passes_is_waited_for_longer_and_longer():
    answer, posts, slept = outcome({n: Fault.error(503, "loading") for n in range(6)})
    assert (answer.text, answer.attempts, posts) == ("yes", 7, 7)
    assert slept == [0.75, 1.5, 3.0, 6.0, 12.0, 24.0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_does_not_pass_is_given_up(status):
    error, posts, slept = outcome(always(Fault.error(status, "Come  back\nlater")), retries=2)
    assert type(error) is EndpointError
    assert (error.status, error.message, posts, slept) == (status, f"{status}: Come back later", 3, [0.75, 1.5])


def test_waits_are_drawn_and_bounded():
    waits = [backoff(failures, random.Random(0)) for failures in (1, 2, 3)]
    assert waits == [backoff(failures, random.Random(0)) for failures in (1, 2, 3)]
    assert all(longest / 2 <= wait <= longest for wait, longest in zip(waits, (1, 2, 4), strict=True))
    assert len({backoff(1, random.Random(seed)) for seed in range(8)}) == 8
    assert 30 <= backoff(50, random.Random(0)) <= 60


@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault.rate_limit("7"), 7.0),
        (Fault.rate_limit("Wed, 21 Oct 2015 07:28:30 GMT", Date="Wed, 21 Oct 2015 07:28:00 GMT"), 30.0),
        (Fault.rate_limit(), 0.75),
        (Fault.rate_limit("soon"), 0.75),
        (Fault(status=503, headers={"Retry-After": "9"}, body={}), 9.0),
    ],
)
def test_servers_say_how_long_to_wait(fault, wait):
    answer, posts, slept = outcome({0: fault})
    assert (answer.text, posts, slept) == ("yes", 2, [wait])


def test_a_date_that_has_passed_is_no_wait():
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


def test_a_server_that_asks_for_hours_is_not_waited_for():
    error, posts, slept = outcome(always(Fault.rate_limit("7200")))
    assert (error.message, posts, slept) == ("asks to wait 7200 s; 429: Rate limit reached", 1, [])


def test_a_rate_limit_holds_for_all_who_ask():
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 1:  # while the first waits for its next try, another asks
            endpoint.chat(HELLO, most_tokens=1)

    with (
        EndpointServer(faults={0: Fault.rate_limit("20")}) as server,
        endpoint_at(server, model="stub", concurrency=2, sleep=sleep) as endpoint,
    ):
        assert endpoint.chat(HELLO, most_tokens=1).attempts == 2
    assert slept == [20, 20]


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault.error(400, "top_p is silly"), EndpointError, "400: top_p is silly"),
        (Fault.error(413, "Too large"), EndpointError, "413: Too large"),
        (Fault(status=422, body={"detail": [{"loc": ["n"], "msg": "bad"}]}), EndpointError, "422: [{'loc': ['n'], 'msg': 'bad'}]"),
        (Fault(status=400, body={"object": "error", "message": "old vLLM", "code": 400}), EndpointError, "400: old vLLM"),
        (Fault(status=400, body={"error": "Ollama"}), EndpointError, "400: Ollama"),
        (Fault(status=403, body="<html><title>No</title></html>"), EndpointError, "403: a web page, 'No'"),
        (Fault(status=400, body=""), EndpointError, "400, without a word"),
        (
            Fault.error(401, "Wrong key"),
            UnusableEndpointError,
            "401: Wrong key; set LONGREACH_API_KEY to a key that this endpoint takes",
        ),
        (
            Fault.error(401, "This key has no context length of 128000"),
            UnusableEndpointError,
            "401: This key has no context length of 128000; set LONGREACH_API_KEY to a key that this endpoint takes",
        ),
        (Fault.error(402, "Pay"), UnusableEndpointError, "402: Pay"),
        (Fault.error(404, "No such model"), UnusableEndpointError, "404: No such model"),
        (Fault.error(429, "Pay", code="insufficient_quota"), UnusableEndpointError, "429: Pay"),
        (
            Fault(status=307, headers={"Location": "https://other/v1"}, body={}),
            UnusableEndpointError,
            "307, sends on to https://other/v1; give that address",
        ),
    ],
)
def test_what_another_try_would_not_change_is_told_at_once(fault, kind, message):
    error, posts, slept = outcome({0: fault})
    assert (type(error), error.message, error.status, posts, slept) == (kind, message, fault.status, 1, [])
    assert isinstance(error, LongreachError)


def test_messages_are_one_line_of_bounded_length():
    error, _, _ = outcome({0: Fault.error(400, "many\r\n words " * 1000)})
    assert error.message.startswith("400: many words many words")
    assert len(error.message) == LONGEST_MESSAGE
    assert "\n" not in str(error)


NONSENSE = {
    "a web page": (Fault(body="<html><head><TITLE>Login</TITLE></head></html>"), "the reply is no JSON: a web page, 'Login'"),
    "half of the JSON": (Fault(body='{"choices": [{"mess'), 'the reply is no JSON: {"choices": [{"mess'),
    "other JSON": (Fault(body={"ok": True}), 'the reply has nothing that was asked for: {"ok": true}'),
    "a list": (Fault(body=[1]), "the reply has nothing that was asked for: [1]"),
    "no choices": (Fault(body={"choices": []}), 'the reply has nothing that was asked for: {"choices": []}'),
    "no message": (Fault(body={"choices": [{}]}), 'the reply has nothing that was asked for: {"choices": [{}]}'),
    "a number for a text": (Fault(body={"choices": [{"message": {"content": 7}}]}), "the reply has nothing that was asked for"),
    "bad logprobs": (
        Fault(body={"choices": [{"message": {"content": "a"}, "logprobs": {"content": [7]}}]}),
        "the reply has nothing that was asked for",
    ),
    "a deep nest": (Fault(body="[" * 100_000), "the reply is no JSON: [[[["),
    "an end in the middle": (Fault(cut=True), "the connection broke: peer closed connection"),
    "no reply": (Fault(drop=True), "the connection broke: Server disconnected"),
    "an error without a code": (Fault(body={"error": {"message": "upstream"}}), "200: upstream"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_asked_for_again_twice(name):
    fault, message = NONSENSE[name]
    error, posts, slept = outcome(always(fault))
    assert type(error) is EndpointError
    assert error.message.startswith(message)
    assert (posts, slept) == (3, [0.75, 1.5])
    answer, posts, _ = outcome({0: fault, 1: fault})
    assert (answer.text, answer.attempts, posts) == ("yes", 3, 3)


def test_an_error_in_a_reply_of_200_counts_as_its_code():
    error, posts, _ = outcome({0: Fault(body={"error": {"message": "bad", "code": 400}})})
    assert (error.message, error.status, posts) == ("400: bad", 400, 1)
    answer, posts, _ = outcome({n: Fault(body={"error": {"message": "upstream", "code": 502}}) for n in range(5)})
    assert (answer.text, posts) == ("yes", 6)


@pytest.mark.parametrize("dialect", ["openai", "vllm", "llama.cpp"])
def test_a_request_that_is_too_long_has_an_error_of_its_own(dialect):
    error, posts, slept = outcome(None, most_characters=10, dialect=dialect)
    assert type(error) is ContextLengthError
    assert (error.limit, error.status, posts, slept) == (10, 400, 1, [])


@pytest.mark.parametrize(
    ("message", "more", "limit"),
    [
        ("'max_tokens' or 'max_completion_tokens' is too large: 200. This model's maximum context length is 4096 tokens and your request "
         "has 4000 input tokens (200 > 4096 - 4000).", {}, 4096),
        ("The decoder prompt (length 5000) is longer than the maximum model length of 4096.", {}, 4096),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", {}, 4096),
        ("the request exceeds the available context size. try increasing it", {"type": "exceed_context_size_error", "n_ctx": 4096}, 4096),
        ("the request exceeds the available context size, try increasing it", {}, None),
        ("Requested tokens (5000) exceed context window of 4096", {}, 4096),
        ("Too long.", {"type": "exceed_context_size_error", "n_ctx": "many"}, None),
        ("Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens.",
         {"code": "context_length_exceeded"}, 272000),
        ("Too long.", {"code": "context_length_exceeded"}, None),
    ],
)  # fmt: skip
def test_servers_have_many_words_for_too_long(message, more, limit):
    error, posts, _ = outcome({0: Fault.error(400, message, **more)})
    assert (type(error), error.limit, posts) == (ContextLengthError, limit, 1)


@pytest.mark.parametrize("status", [413, 422])
def test_too_long_may_have_another_status(status):
    error, posts, _ = outcome({0: Fault.error(status, "exceeds the maximum context length of 4096")})
    assert (type(error), error.limit, posts) == (ContextLengthError, 4096, 1)


def test_an_older_llama_cpp_says_so_with_500():
    error, posts, _ = outcome({0: Fault.error(500, "too long", type="exceed_context_size_error", n_ctx=256)})
    assert (type(error), error.limit, posts) == (ContextLengthError, 256, 1)


def test_a_context_that_is_only_mentioned_is_none_that_is_exceeded():
    error, _, _ = outcome({0: Fault.error(400, "the context must be a string")})
    assert type(error) is EndpointError


def test_a_server_without_a_list_of_models_needs_a_name():
    class Bare(EndpointServer):
        def reply(self, received):
            return (404, {"detail": "Not Found"}) if received.body is None else super().reply(received)

    with (
        Bare() as server,
        endpoint_at(server) as endpoint,
        pytest.raises(LongreachError, match="does not say which models it serves; name one"),
    ):
        endpoint.chat(HELLO, most_tokens=1)


def test_without_retries_nothing_is_tried_again():
    with EndpointServer() as server:
        pass
    with endpoint_at(server, retries=0) as endpoint, pytest.raises(UnusableEndpointError, match="cannot be reached") as caught:
        endpoint.chat(HELLO, most_tokens=1)
    assert caught.value.attempts == 1
    assert outcome({0: Fault(drop=True)}, retries=0)[1] == 1
