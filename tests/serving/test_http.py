"""What no client library sends, and what happens around requests."""

import copy
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx2
import pytest

from longreach.conversation.conversation import Conversation
from longreach.core.errors import InputError
from longreach.endpoint.base import Request
from longreach.endpoint.client import Endpoint
from longreach.endpoint.errors import ContextLengthError
from longreach.serving.job import ServerFullError
from longreach.serving.local import ServedModel
from longreach.serving.service import Limits
from tests.serving.served import server

HELLO = [{"role": "user", "content": "hello"}]


def body(**more):
    return {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 8, **more}


def until(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def http(running):
    with httpx2.Client(base_url=running[0], timeout=30) as found:
        yield found


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "the body must be a JSON object, not a list"),
        (b'{"model": NaN}', "NaN is no JSON"),
        (b'{"model": "\xff"}', "not valid JSON"),
        (b'{"model": "\\ud800"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON|nested too deeply"),
        (b'{"model": "tiny"}', "messages must be a list"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "model is missing"),
        (b'{"messages": [{"role": "user"}], "model": "tiny"}', "the message is empty"),
    ],
)
def test_bodies_that_are_none_are_told_in_one_line(http, sent, says):
    reply = http.post("/v1/chat/completions", content=sent)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert re.search(says, error["message"])
    assert "\n" not in error["message"]


def test_places_that_are_none(http):
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405)):
        reply = http.request(method, path)
        assert reply.status_code == status
        assert reply.json()["error"]["message"]


def test_without_page_files_the_root_says_so(http, monkeypatch, tmp_path):
    monkeypatch.setattr("longreach.serving.app._PAGE", tmp_path)
    assert http.get("/").status_code == 404
    assert "has no page" in http.get("/page.js").json()["error"]["message"]
    (tmp_path / "index.html").write_text("<p>hello")
    reply = http.get("/")
    assert reply.text == "<p>hello"
    assert reply.headers["content-type"].startswith("text/html")
    assert reply.headers["content-security-policy"] == "default-src 'self'"


def test_metrics_count_what_happened(http, running):
    before = running[1].metrics.text({})
    http.post("/v1/chat/completions", json=body(messages=[{"role": "user", "content": "count me"}]))
    http.get("/v1/files/made-up")
    until(lambda: "longreach_requests_running 0" in http.get("/metrics").text)
    text = http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    old = dict(line.rsplit(" ", 1) for line in before.splitlines() if not line.startswith("#"))

    def more(name):
        return float(lines[name]) - float(old.get(name, 0))

    assert more('longreach_requests_total{path="/v1/chat/completions",status="200"}') == 1
    assert more('longreach_requests_total{path="/v1/files/ID",status="404"}') == 1
    assert more('longreach_tokens_total{kind="written"}') == 8
    assert more("longreach_time_to_first_token_seconds_count") == 1
    assert more("longreach_step_seconds_count") >= 6  # the first round writes two tokens, and the last is counted behind the reply
    assert "made-up" not in text


def test_a_client_that_goes_frees_the_cache(http, running):
    scheduler = running[1].scheduler
    endless = body(max_tokens=900, messages=[{"role": "user", "content": "go on"}])
    with http.stream("POST", "/v1/chat/completions", json={**endless, "stream": True}) as reply:
        next(reply.iter_lines())
        until(lambda: scheduler.running == 1)
    until(lambda: not scheduler.running)
    assert scheduler.tokens == 0
    with pytest.raises(httpx2.TimeoutException):
        http.post("/v1/chat/completions", json=endless, timeout=0.1)
    until(lambda: not scheduler.running)
    assert "longreach_requests_running 0" in http.get("/metrics").text


def test_a_slow_reader_holds_up_nobody(http, running):
    with http.stream("POST", "/v1/chat/completions", json=body(stream=True, max_tokens=200)) as slow:
        assert http.post("/v1/chat/completions", json=body()).status_code == 200
        until(lambda: not running[1].scheduler.running)  # it was written to its end, unread
        assert [line for line in slow.iter_lines() if line][-1] == "data: [DONE]"


def test_our_own_client_asks_it(running):
    with Endpoint(running[0]) as endpoint:
        assert endpoint.name == "tiny"
        answer = endpoint.chat(HELLO, most_tokens=6, logprobs=2)
        assert answer.completion_tokens == 6
        assert len(answer.logprobs) == 6
        assert endpoint.complete("once", most_tokens=3).completion_tokens == 3
        assert endpoint.chat(HELLO, most_tokens=3, prefix="Well, ").completion_tokens == 3
        assert endpoint.count("once upon") == 9
        with pytest.raises(ContextLengthError) as caught:
            endpoint.complete("a" * 1100, most_tokens=3)
        assert caught.value.limit == 1024


def test_what_runs_inside_asks_the_same_model(running):
    inside = ServedModel(running[1])
    with Endpoint(running[0]) as outside:
        for request in (
            Request(messages=HELLO, most_tokens=8, logprobs=1),
            Request(prompt="once upon", most_tokens=5),
            Request(messages=HELLO, most_tokens=4, prefix="Well, "),
            Request(messages=HELLO, most_tokens=8, stop="x", temperature=0.7, seed=4),
        ):
            ours, theirs = inside.ask(request), outside.ask(request)
            assert (ours.text, ours.finish_reason, ours.prompt_tokens) == (theirs.text, theirs.finish_reason, theirs.prompt_tokens)
            assert (ours.logprobs is None) == (theirs.logprobs is None)
    assert inside.count("once") == 4
    with pytest.raises(ContextLengthError):
        inside.complete("a" * 1100, most_tokens=3)


def test_keys(loaded):
    with server(loaded, keys=["first-key", "second-key"]) as (url, _, _), httpx2.Client(base_url=url) as http:
        assert http.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic first-key"}, {"Authorization": "Bearer first-ke"}):
            for path in ("/v1/models", "/metrics", "/v1/files"):
                reply = http.get(path, headers=headers)
                assert reply.status_code == 401
                assert reply.json()["error"]["code"] == "invalid_api_key"
        for key in ("first-key", "second-key"):
            assert http.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200


def test_limits(loaded):
    def chunks():
        for _ in range(8):
            yield b"x" * 1000

    limits = Limits(body=4000, seconds=0.3)
    with server(loaded, limits=limits, file_bytes=100) as (url, service, _), httpx2.Client(base_url=url, timeout=20) as http:
        for content in (b"x" * 5000, chunks()):
            reply = http.post("/v1/chat/completions", content=content)
            assert reply.status_code == 413
            assert "larger than the 4000 bytes" in reply.json()["error"]["message"]
        file = {"file": ("a.txt", b"a" * 90)}
        assert http.post("/v1/files", files=file, data={"purpose": "user_data"}).status_code == 200
        assert http.post("/v1/files", files=file, data={"purpose": "user_data"}).json()["error"]["code"] == "storage_full"
        service.scheduler.step = lambda: time.sleep(0.5) or type(service.scheduler).step(service.scheduler)
        late = http.post("/v1/chat/completions", json=body(max_tokens=400))
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "timeout"


def test_a_full_server_says_when_to_come_again(http, running, monkeypatch):
    def full(job):
        raise ServerFullError("256 requests wait already")

    monkeypatch.setattr(running[1].scheduler, "submit", full)
    for stream in (False, True):
        reply = http.post("/v1/chat/completions", json=body(stream=stream))
        assert reply.status_code == 429
        assert reply.headers["retry-after"] == "5"
        assert reply.json()["error"]["code"] == "rate_limit_exceeded"


def test_an_error_in_the_middle_of_a_stream_is_an_event(http, running, monkeypatch):
    broken = iter([False, False, True])
    monkeypatch.setattr("longreach.serving.scheduler.check_finite", lambda logits, *_, **__: _fail() if next(broken, False) else logits)
    with http.stream("POST", "/v1/chat/completions", json=body(stream=True)) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert reply.status_code == 200
    assert json.loads(lines[-1].removeprefix("data: "))["error"]["message"] == "an error inside the server; its log has it"
    assert http.post("/v1/chat/completions", json=body()).status_code == 200


def _fail():
    raise ZeroDivisionError


def test_closing_lets_what_runs_end_and_refuses_the_rest(loaded):
    with (
        server(loaded, limits=Limits(grace=20.0), most_running=1) as (url, service, serving),
        httpx2.Client(base_url=url, timeout=30) as http,
    ):
        replies = {}

        def ask(name, most):
            replies[name] = http.post("/v1/chat/completions", json=body(max_tokens=most))

        first = threading.Thread(target=ask, args=("first", 300))
        first.start()
        until(lambda: service.scheduler.running)
        second = threading.Thread(target=ask, args=("second", 300))
        second.start()
        until(lambda: service.scheduler.waiting)
        serving._loop.call_soon_threadsafe(serving.close)
        second.join()
        assert replies["second"].status_code == 503
        assert http.get("/health").status_code == 503
        assert http.post("/v1/chat/completions", json=body()).json()["error"]["code"] == "server_closing"
        first.join()
        assert replies["first"].json()["usage"]["completion_tokens"] == 300


def test_what_does_not_end_in_time_is_ended(loaded):
    with server(loaded, limits=Limits(grace=0.2)) as (url, service, serving), httpx2.Client(base_url=url, timeout=30) as http:
        real = service.scheduler.step
        service.scheduler.step = lambda: time.sleep(0.05) or real()
        replies = []
        asking = threading.Thread(target=lambda: replies.append(http.post("/v1/chat/completions", json=body(max_tokens=400))))
        asking.start()
        until(lambda: service.scheduler.running)
        serving._loop.call_soon_threadsafe(serving.close)
        asking.join()
        assert replies[0].status_code == 503


# --- documents that do not fit

DOCUMENT = {"type": "file", "file": {"file_data": "data:text/plain;base64," + "YWFh" * 400, "filename": "long.txt"}}
QUESTION = [{"role": "user", "content": [DOCUMENT, {"type": "text", "text": "what?"}]}]


def test_documents_that_do_not_fit_need_a_workflow(http):
    reply = http.post("/v1/chat/completions", json=body(messages=QUESTION)).json()["error"]
    assert reply["code"] == "context_length_exceeded"
    assert "longreach.read names a workflow" in reply["message"]
    reply = http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "stuff"})).json()["error"]
    assert (reply["param"], reply["message"]) == ("longreach.read", "this server reads no documents beyond its window")


def test_a_workflow_reads_documents_with_the_served_model(http, running, monkeypatch):
    asked = []

    def read(model, documents, question, spec, most, progress):
        asked.append(SimpleNamespace(documents=documents, question=question, spec=spec, most=most))
        if spec == "wrong":
            raise InputError("unknown workflow 'wrong'")
        progress.start("searching", 10)
        parts = [model.chat([{"role": "user", "content": part}], most_tokens=2).text for part in ("one", "two")]
        progress.advance(10)
        return "".join(parts), {"documents": ["long.txt"], "calls": 2}

    monkeypatch.setattr(running[1], "read_document", read)
    reply = http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "parts"})).json()
    assert reply["longreach"]["ledger"] == {"documents": ["long.txt"], "calls": 2}
    assert reply["usage"]["completion_tokens"] == 4
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert asked[0].documents[0].text == "a" * 1200
    assert (asked[0].question, asked[0].spec, asked[0].most) == ("what?", "parts", body()["max_tokens"])
    more = {"read": "parts", "progress": True}
    with http.stream("POST", "/v1/chat/completions", json=body(messages=QUESTION, longreach=more, stream=True)) as stream:
        events = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line and not line.endswith("[DONE]")]
    assert [event["longreach"]["progress"]["done"] for event in events if not event["choices"]] == [0, 10]
    text = "".join(choice["delta"].get("content", "") for event in events for choice in event["choices"])
    assert text == reply["choices"][0]["message"]["content"]
    assert events[-1]["longreach"]["ledger"]["calls"] == 2
    wrong = http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "wrong"}))
    assert (wrong.status_code, wrong.json()["error"]["message"]) == (400, "unknown workflow 'wrong'")


def test_a_workflow_sees_the_system_prompt_and_the_last_message_and_the_receipt_says_so(http, running, monkeypatch):
    asked = []
    monkeypatch.setattr(running[1], "read_document", lambda *given: asked.append(given[2]) or ("it", {}))
    earlier = [{"role": "system", "content": "be brief"}, QUESTION[0], {"role": "assistant", "content": "this"}]
    messages = [*earlier, {"role": "user", "content": "and then?"}]
    reply = http.post("/v1/chat/completions", json=body(messages=messages, longreach={"read": "parts"})).json()
    assert asked == ["be brief\n\nand then?"]
    left = reply["longreach"]["receipt"]["left_out"]
    assert [(each["turn"], each["role"]) for each in left] == [(1, "user"), (1, "assistant")]
    assert all(each["tokens"] for each in left)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 2), ("stop", ["."]), ("min_tokens", 2), ("logprobs", True), ("tools", [{"type": "function", "function": {"name": "look"}}])],
)
def test_what_has_no_effect_on_a_workflow_is_refused(http, running, monkeypatch, name, value):
    monkeypatch.setattr(running[1], "read_document", lambda *given: ("it", {}))
    reply = http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "parts"}, **{name: value}))
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, name)


@pytest.fixture
def endless(running, monkeypatch):
    """A workflow that asks without end; the event says that it was ended."""
    ended = threading.Event()

    def read(model, *_):
        try:
            while True:
                model.chat(HELLO, most_tokens=2)
        finally:
            ended.set()

    monkeypatch.setattr(running[1], "read_document", read)
    return ended


def test_a_workflow_ends_where_its_client_goes(http, endless):
    with pytest.raises(httpx2.TimeoutException):
        http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "parts"}), timeout=0.3)
    assert endless.wait(10)


def test_a_workflow_that_takes_too_long_is_ended(http, running, monkeypatch, endless):
    monkeypatch.setattr(running[1], "limits", Limits(seconds=0.3))
    reply = http.post("/v1/chat/completions", json=body(messages=QUESTION, longreach={"read": "parts"}))
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    assert endless.wait(10)


def test_the_plain_template_is_that_of_conversations(loaded):
    plain = type(loaded)(loaded.model, copy.deepcopy(loaded.tokenizer))
    plain.tokenizer.chat_template = None
    with Conversation(*plain) as talk:
        wanted = talk.say("hello", max_new_tokens=30)
    with server(plain) as (url, _, _), httpx2.Client(base_url=url) as http:
        reply = http.post("/v1/chat/completions", json=body(max_tokens=30)).json()
        assert reply["choices"][0]["message"]["content"].strip() == wanted.text.strip()
        assert reply["usage"]["prompt_tokens"] == wanted.prompt
        tools = [{"type": "function", "function": {"name": "add"}}]
        assert http.post("/v1/chat/completions", json=body(tools=tools)).json()["error"]["param"] == "tools"


def test_many_threads_make_prompts_at_a_time(running):
    service, texts = running[1], [f"{number} " * (50 * number) for number in range(1, 25)]
    wanted = [service.encoded(text, special=True) for text in texts]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda text: service.encoded(text, special=True), texts * 4)) == wanted * 4
