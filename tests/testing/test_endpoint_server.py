import threading

import httpx2
import pytest

from longreach.testing.endpoint_server import EndpointServer, Fault

CHAT = {"model": "stub", "messages": [{"role": "user", "content": "one two"}]}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def post(server, path="/chat/completions", **body):
    return httpx2.post(f"{server.url}{path}", json={**CHAT, **body}, verify=False)


def test_it_is_gone_after_its_block_though_clients_stay_and_requests_wait():
    before = set(threading.enumerate())
    came, replies = threading.Event(), []

    class Held(threading.Event):
        def wait(self, timeout=None):
            came.set()
            return super().wait(timeout)

    with httpx2.Client(verify=False) as client:
        with EndpointServer(faults={1: Fault(until=Held())}) as server:
            assert client.get(f"{server.url}/models").json()["data"][0]["id"] == "stub"
            assert client.post(f"{server.url}/chat/completions", json=CHAT).json()["choices"][0]["message"]["content"] == "yes"
            waiting = threading.Thread(target=lambda: replies.append(client.post(f"{server.url}/chat/completions", json=CHAT)))
            waiting.start()
            assert came.wait(10)
        waiting.join()
    assert replies[0].status_code == 200
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("text", ["one two", " one\n\ntwo ", "one  \n", "\n", ""])
@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_written_as_they_are(text, stream):
    with EndpointServer(lambda _: text) as server:
        reply = post(server, stream=stream)
    if stream:
        *events, last = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
        assert last == "[DONE]"
        deltas = [httpx2.Response(200, text=event).json()["choices"][0]["delta"] for event in events]
        assert "".join(delta.get("content", "") for delta in deltas) == text
    else:
        assert reply.json()["choices"][0]["message"]["content"] == text


def test_a_stream_may_end_in_the_middle():
    with EndpointServer(lambda _: "one two three", faults={0: Fault(cut=True)}) as server:
        cut, whole = (post(server, stream=True).text for _ in range(2))
    assert '"one"' in cut
    assert "[DONE]" not in cut
    assert whole.endswith("[DONE]\n\n")


def test_texts_end_before_stops():
    with EndpointServer(lambda _: "one two three") as server:
        for stop in (" three", ["x", " three"]):
            choice = post(server, stop=stop).json()["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "stop")


def test_a_model_that_is_not_there():
    with EndpointServer() as server:
        reply = post(server, model="other")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_the_official_client_understands_it():
    openai = pytest.importorskip("openai")
    with (
        EndpointServer(lambda _: "one two three", models=("a", "b"), key="k", most_characters=100) as server,
        openai.OpenAI(base_url=server.url, api_key="k", max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["a", "b"]
        whole = client.chat.completions.create(model="a", messages=CHAT["messages"], max_tokens=2, logprobs=True, top_logprobs=1)
        assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("one two", "length")
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (2, 2)
        assert [each.logprob for each in whole.choices[0].logprobs.content] == [-0.5, -0.5]
        parts = list(
            client.chat.completions.create(model="a", messages=CHAT["messages"], stream=True, stream_options={"include_usage": True})
        )
        assert [part.choices[0].delta.content for part in parts[:-1]] == ["one", " two", " three", None]
        assert (parts[-2].choices[0].finish_reason, parts[-1].usage.completion_tokens) == ("stop", 3)
        prompt = client.completions.create(model="b", prompt="Hello", logprobs=1)
        assert (prompt.choices[0].text, prompt.choices[0].logprobs.tokens) == ("one two three", ["one", " two", " three"])
        streamed = client.completions.create(model="b", prompt="Hello", stream=True, max_tokens=2)
        assert "".join(part.choices[0].text for part in streamed) == "one two"
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="b", prompt="x" * 101)
        assert caught.value.code == "context_length_exceeded"
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="other").models.list()
