"""Recordings: every request to an endpoint and its answer, a line of JSON each, from which the same requests are answered again."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError
from longreach.core.lines import append_lines, read_lines
from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError, EndpointError, UnusableEndpointError

_BEGINNING = b'{"key": "'  # of every line
_KINDS = {kind.__name__: kind for kind in (EndpointError, UnusableEndpointError, ContextLengthError)}


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A line. Args: key: of the request. at: when it was asked, UTC. answer, error: one is None."""

    key: str
    at: str
    model: str
    request: Mapping[str, Any]
    answer: Completion | None
    error: EndpointError | None

    def to_json(self) -> str:
        answer = None if self.answer is None else asdict(self.answer)
        error = None if self.error is None else {"kind": type(self.error).__name__, **vars(self.error)}
        return json.dumps({**vars(self), "answer": answer, "error": error}, allow_nan=False)


class Recording(ChatModel):
    """Answers from a file, and, where it has an endpoint, asks that what the file does not hold and writes it down.

    With an endpoint it is a cache: a stopped run goes on, and pays for nothing twice. Without one it works offline. A request is known
    by the model's name and everything in it. What is sampled without a seed is answered as often as it was recorded, in that order;
    anything else is asked once, however many ask at a time, and always has its first answer. Failures are written down, too: an endpoint
    is asked again, offline they are raised again.

    Args: path: the JSON Lines file; made, with its folder, at the first answer. endpoint: any `ChatModel`; its key is never written.
    model: without an endpoint, whose answers to give where the file has several models'.

    Raises: InputError for a file that is no recording, and without an endpoint for one that has no model's answers or several models'.
    """

    def __init__(self, path: str | Path, endpoint: ChatModel | None = None, *, model: str | None = None) -> None:
        if endpoint is not None and model is not None:
            raise InputError(f"model={model!r} chooses among recorded models; the endpoint has its own")
        self.path = Path(path)
        self.endpoint = endpoint
        self.healed = False  # whether a last line torn by a kill was taken off the file
        self.replayed = 0  # answers that were given from the file
        self._lock = threading.Condition()
        self._under_way: set[str] = set()  # what the endpoint is being asked, and who asks for the same waits for
        self._answers: dict[str, list[Completion]] = {}
        self._errors: dict[str, EndpointError] = {}
        self._given: Counter[str] = Counter()
        calls: list[_Call] = []
        if endpoint is None or self.path.exists():
            calls, self.healed = read_lines(self.path, _parse, "call", _BEGINNING)
        for call in calls:
            self._keep(call)
        self._model = model or ("" if endpoint is not None else self._only_model({call.model for call in calls}))

    def __repr__(self) -> str:
        return f"Recording({str(self.path)!r}, {self.endpoint!r})"

    @property
    def name(self) -> str:
        """The model's name: the endpoint's, or the recorded one."""
        return self._model if self.endpoint is None else self.endpoint.name

    @property
    def concurrency(self) -> int:
        """That of the endpoint; offline, 1."""
        return 1 if self.endpoint is None else self.endpoint.concurrency

    @property
    def window(self) -> int | None:
        """That of the endpoint, if it can tell; offline nobody can."""
        return None if self.endpoint is None else self.endpoint.window

    def count(self, text: str) -> int | None:
        """Tokens of a text, if the endpoint can tell; offline nobody can."""
        return None if self.endpoint is None else self.endpoint.count(text)

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens of a chat, if the endpoint can tell; offline nobody can."""
        return None if self.endpoint is None else self.endpoint.count_chat(messages)

    def ask(self, request: Request) -> Completion:
        """Answer a request.

        Raises: EndpointError; InputError offline for a request that was not recorded, and where the file cannot be written.
        """
        name = self.name
        key = key_of(name, request)
        if self.endpoint is None:
            return self._replayed(key, request)
        with self._lock:
            while key in self._under_way:
                self._lock.wait()
            if (recorded := self._recorded(key, request)) is not None:
                return recorded
            if not request.by_chance:
                self._under_way.add(key)
        asked = partial(_Call, key=key, at=datetime.now(UTC).isoformat(timespec="milliseconds"), model=name, request=asdict(request))
        try:
            answer = self.endpoint.ask(request)
            self._write(asked(answer=answer, error=None))
        except EndpointError as error:
            self._write(asked(answer=None, error=error))
            raise
        finally:
            with self._lock:
                self._under_way.discard(key)
                self._lock.notify_all()
        return answer

    def _replayed(self, key: str, request: Request) -> Completion:
        with self._lock:
            if (answer := self._recorded(key, request)) is not None:
                return answer
        if key in self._errors:
            raise self._errors[key]
        raise InputError(f"{self.path} has no answer to this request ({_excerpt(request)}); record it with the endpoint first")

    def _recorded(self, key: str, request: Request) -> Completion | None:
        answers = self._answers.get(key, [])
        turn = self._given[key] if request.by_chance else 0
        self._given[key] += 1
        if turn >= len(answers):
            return None
        self.replayed += 1
        return answers[turn]

    def _write(self, call: _Call) -> None:
        with self._lock:
            append_lines(self.path, [call.to_json()], "call")
            self._keep(call)

    def _keep(self, call: _Call) -> None:
        if call.answer is not None:
            self._answers.setdefault(call.key, []).append(call.answer)
        if call.error is not None:
            self._errors[call.key] = call.error

    def _only_model(self, names: set[str]) -> str:
        if len(names) != 1:
            held = f"has answers of {', '.join(sorted(names))}; name one model" if names else "has no answers; name an endpoint"
            raise InputError(f"{self.path} {held}")
        return names.pop()


def key_of(model: str, request: Request) -> str:
    """What a request is found by: a hash of everything that determines the answer."""
    return hashlib.sha256(json.dumps([model, asdict(request)], sort_keys=True).encode()).hexdigest()


def _excerpt(request: Request) -> str:
    text = " ".join(str(request.messages[-1]["content"] if request.prompt is None else request.prompt).split())
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def _parse(line: bytes) -> _Call | None:
    """None for what is no call."""
    try:
        said = json.loads(line)
        if (answer := said.pop("answer")) is not None:
            logprobs = answer.pop("logprobs")
            answer = Completion(**answer, logprobs=None if logprobs is None else tuple(TokenLogprob(**each) for each in logprobs))
        if (error := said.pop("error")) is not None:
            error = _KINDS[error.pop("kind")](error.pop("url"), error.pop("message"), **error)
        return _Call(**said, answer=answer, error=error)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
