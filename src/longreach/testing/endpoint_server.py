"""A server that speaks OpenAI's protocol, in this process, for tests: answers by a function, faults by a script."""

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Body = dict[str, Any]

_TOO_LONG: dict[str, Callable[[int, int], Body]] = {
    "openai": lambda limit, asked: {
        "message": f"This model's maximum context length is {limit} tokens. However, your messages resulted in {asked} tokens. "
        "Please reduce the length of the messages.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    },
    "vllm": lambda limit, asked: {
        "message": f"This model's maximum context length is {limit} tokens. However, you requested 16 output tokens and your prompt "
        f"contains at least {asked} input tokens, for a total of at least {asked + 16} tokens.",
        "type": "BadRequestError",
        "param": "input_tokens",
        "code": 400,
    },
    "llama.cpp": lambda limit, asked: {
        "message": f"request ({asked} tokens) exceeds the available context size ({limit} tokens), try increasing it",
        "type": "exceed_context_size_error",
        "code": 400,
        "n_prompt_tokens": asked,
        "n_ctx": limit,
    },
}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a request in place of an answer, or before it.

    Args: drop: the connection ends without a reply. until: the answer waits for this event. status, headers, body: of a reply; without a
    body the answer is the usual one. cut: the reply ends in the middle of its body.
    """

    drop: bool = False
    until: threading.Event | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    cut: bool = False

    @classmethod
    def rate_limit(cls, retry_after: str | None = None, **headers: str) -> Self:
        """429, with or without `Retry-After`."""
        asked = {} if retry_after is None else {"Retry-After": retry_after}
        return cls(
            status=429, headers={**asked, **headers}, body={"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}
        )

    @classmethod
    def error(cls, status: int, message: str, **more: Any) -> Self:
        """An error object of OpenAI's form."""
        return cls(status=status, body={"error": {"message": message, **more}})


@dataclass(frozen=True, kw_only=True)
class Received:
    """A request as it came. Args: headers: with names in lower case. body: None of a GET."""

    path: str
    headers: Mapping[str, str]
    body: Body | None


class EndpointServer:
    """Serves /v1/models, /v1/chat/completions and /v1/completions, whole or as server-sent events, at `url` in a `with` block.

    A token is a word with the space before it. Log-probabilities are -0.5 for every token.

    Args: answer: the request's body -> the text, or, for chats, a message as it is. faults: by the number of the request, from 0, GETs left
    out; or a function of it. models: that are listed. most_characters: of a prompt; a longer one is refused in the wording of `dialect`:
    `openai`, `vllm` or `llama.cpp`, of which the latter two count tokens at /tokenize. refuses: fields that are not taken, as OpenAI's
    newer models refuse them. key: that requests have to have. window: tokens, which the list of models states as vLLM does.
    """

    def __init__(
        self,
        answer: Callable[[Body], str | Body] = lambda _: "yes",
        *,
        faults: Mapping[int, Fault] | Callable[[int], Fault | None] | None = None,
        models: tuple[str, ...] = ("stub",),
        most_characters: int | None = None,
        dialect: str = "openai",
        refuses: tuple[str, ...] = (),
        key: str | None = None,
        window: int | None = None,
    ) -> None:
        self.answer, self.models, self.refuses, self.key = answer, models, refuses, key
        self._stated = {} if window is None else {"max_model_len": window}
        self.most_characters, self.dialect = most_characters, dialect
        self.fault_of = faults if callable(faults) else (faults or {}).get
        self.received: list[Received] = []
        self.most_at_once = 0
        self._posts = self._at_once = 0
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._held: set[threading.Event] = set()
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}), bind_and_activate=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="endpoint-server")

    def __enter__(self) -> Self:
        self._server.server_bind()
        self._server.server_activate()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            for event in self._held:
                event.set()
            for connection in self._connections:
                with suppress(OSError):  # the client may have gone
                    connection.shutdown(socket.SHUT_RD)  # ends the wait for a next request, and lets an answer go out
        self._server.server_close()

    @property
    def posts(self) -> list[Received]:
        """The requests that were not GETs."""
        return [each for each in self.received if each.body is not None]

    def open(self, connection: socket.socket) -> None:
        """Note a connection, so that it can be closed."""
        with self._lock:
            self._connections.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._connections.discard(connection)

    def begin(self, received: Received) -> Fault | None:
        """Note a request; the fault that is to happen to it."""
        with self._lock:
            self.received.append(received)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            if received.body is None:
                return None
            fault = self.fault_of(self._posts)
            self._posts += 1
            if fault is not None and fault.until is not None:
                self._held.add(fault.until)
            return fault

    def end(self) -> None:
        """Note that a request was dealt with."""
        with self._lock:
            self._at_once -= 1

    def reply(self, received: Received) -> tuple[int, Any]:
        """Status and body of the usual reply."""
        if self.key is not None and received.headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}
        body = received.body
        if body is None:
            return 200, {
                "object": "list",
                "data": [{"id": name, "object": "model", "created": 0, "owned_by": "stub", **self._stated} for name in self.models],
            }
        if received.path == "/tokenize":
            return self._tokenized(body)
        if body.get("model") not in self.models:
            return 404, {"error": {"message": f"The model `{body.get('model')}` does not exist.", "code": "model_not_found"}}
        for name in self.refuses:
            if name in body:
                return 400, _refusal(name)
        asked = sum(map(len, _prompt(body)))
        if self.most_characters is not None and asked > self.most_characters:
            return 400, {"error": _TOO_LONG[self.dialect](self.most_characters, asked)}
        return 200, _Written.by(self.answer(body), body).whole()

    def _tokenized(self, body: Body) -> tuple[int, Any]:
        if self.dialect == "openai":
            return 404, {"error": {"message": "Invalid URL (POST /tokenize)"}}
        if self.dialect == "vllm":
            return 200, {"count": len(_pieces(body["prompt"])), "max_model_len": self.most_characters, "tokens": []}
        return 200, {"tokens": list(range(len(_pieces(body["content"]))))}


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128  # as many may come at once; who finds the queue full tries again after a second

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Show what is wrong with an answer; that a client has gone is part of tests."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    owner: EndpointServer
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a reply leaves in one piece: in two, the second waits for the client to confirm the first

    def setup(self) -> None:
        super().setup()
        self.owner.open(self.connection)

    def finish(self) -> None:
        self.owner.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Body | None) -> None:
        received = Received(path=self.path, headers={name.lower(): value for name, value in self.headers.items()}, body=body)
        fault = self.owner.begin(received)
        try:
            self._answer(received, fault or Fault())
        finally:
            self.owner.end()

    def _answer(self, received: Received, fault: Fault) -> None:
        if fault.until is not None:
            fault.until.wait()
        if fault.drop:
            self.close_connection = True
            return
        status, said = (fault.status, fault.body) if fault.body is not None else self.owner.reply(received)
        if status == 200 and received.body and received.body.get("stream") and isinstance(said, dict):
            self._stream(said, received.body, cut=fault.cut)
            return
        text = isinstance(said, str)
        data = (said if text else json.dumps(said)).encode()
        self._send(status, data, {"Content-Type": "text/html" if text else "application/json", **fault.headers}, cut=fault.cut)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str], *, cut: bool) -> None:
        self.send_response_only(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def _stream(self, reply: Body, body: Body, *, cut: bool) -> None:
        events = [f"data: {json.dumps(each)}\n\n".encode() for each in _chunks(reply, body)]
        self.send_response_only(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")  # the events end where the connection does
        self.end_headers()
        for event in events[: len(events) // 2] if cut else [*events, b"data: [DONE]\n\n"]:
            self.wfile.write(event)
            self.wfile.flush()


@dataclass(frozen=True, kw_only=True)
class _Written:
    """An answer within the request's limits. Args: pieces: its tokens. cut: whether it was longer. message: of a chat, but its text."""

    body: Body
    pieces: list[str]
    cut: bool
    message: Body

    @classmethod
    def by(cls, answer: str | Body, body: Body) -> Self:
        message = {"content": answer} if isinstance(answer, str) else answer
        text = message.get("content")
        if not isinstance(text, str):
            return cls(body=body, pieces=[], cut=False, message=message)
        stops = body.get("stop") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            text = text.partition(stop)[0]
        pieces = _pieces(text)
        most = body.get("max_completion_tokens", body.get("max_tokens")) or len(pieces)
        return cls(body=body, pieces=pieces[:most], cut=len(pieces) > most, message=message | {"content": "".join(pieces[:most])})

    def whole(self) -> Body:
        prompt = sum(len(_pieces(text)) for text in _prompt(self.body))
        chat = "messages" in self.body
        choice: Body = {"index": 0, "finish_reason": "length" if self.cut else "stop", "logprobs": None}
        choice |= {"message": {"role": "assistant"} | self.message} if chat else {"text": "".join(self.pieces)}
        if self.body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(token) for token in self.pieces]} if chat else self._beside()
        written = len(self.pieces)
        return {
            "id": "stub-1",
            "object": "chat.completion" if chat else "text_completion",
            "created": 0,
            "model": self.body["model"],
            "choices": [choice],
            "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        }

    def _beside(self) -> Body:
        """The form of /v1/completions."""
        return {
            "tokens": self.pieces,
            "token_logprobs": [-0.5 for _ in self.pieces],
            "top_logprobs": [{token: -0.5} for token in self.pieces],
            "text_offset": [sum(map(len, self.pieces[:n])) for n in range(len(self.pieces))],
        }


def _chunks(reply: Body, body: Body) -> Iterator[Body]:
    """A whole reply in parts: a token each, the reason why it ended, and, where it is asked for, the usage."""
    chat = "messages" in body
    (choice,) = reply["choices"]
    head = {**reply, "object": "chat.completion.chunk" if chat else "text_completion"}
    del head["usage"]
    text = choice["message"]["content"] if chat else choice["text"]
    for number, piece in enumerate(_pieces(text or "")):
        delta = {"role": "assistant", "content": piece} if number == 0 else {"content": piece}
        part = {"delta": delta} if chat else {"text": piece}
        yield {**head, "choices": [{"index": 0, "finish_reason": None, "logprobs": None, **part}]}
    end: Body = {"delta": {}} if chat else {"text": ""}
    yield {**head, "choices": [{"index": 0, "finish_reason": choice["finish_reason"], "logprobs": None, **end}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": reply["usage"]}


def _pieces(text: str) -> list[str]:
    """Words with the space before them; what ends the text belongs to the last."""
    return re.findall(r"\s*\S+(?:\s+$)?|^\s+$", text)


def _prompt(body: Body) -> list[str]:
    """The texts of a request."""
    if "messages" not in body:
        return [body["prompt"]]
    contents = [message["content"] for message in body["messages"]]
    return [part if isinstance(part, str) else "".join(each.get("text", "") for each in part) for part in contents]


def _logprob(token: str) -> Body:
    given = {"token": token, "logprob": -0.5, "bytes": list(token.encode())}
    return {**given, "top_logprobs": [given]}


def _refusal(name: str) -> Body:
    """The wording of OpenAI's newer models."""
    if name == "temperature":
        said = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
        return {"error": {"message": said, "type": "invalid_request_error", "param": name, "code": "unsupported_value"}}
    instead = " Use 'max_completion_tokens' instead." if name == "max_tokens" else ""
    said = f"Unsupported parameter: '{name}' is not supported with this model.{instead}"
    return {"error": {"message": said, "type": "invalid_request_error", "param": name, "code": "unsupported_parameter"}}
