"""Recordings: every request to an endpoint and its answer, a line of JSON each, from which the same requests are answered again.

Lines of another form hold what the endpoint was asked besides: its window, and tokens of texts, which are known by hashes alone.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError
from longreach.core.lines import append_lines, read_lines
from longreach.endpoint.base import ChatModel, Completion, Request, TokenLogprob
from longreach.endpoint.errors import ContextLengthError, EndpointError, UnusableEndpointError

_BEGINNING = b'{"key": "'  # of every line
_COUNTS = "counts"  # in place of a key: the line has token counts
_DIGITS = 16  # of a text's hash: 64 bits, by which no two texts of a recording are taken for one
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


@dataclass(kw_only=True)
class _Counts:
    """A line. Args: window: of the model, where it was asked for. tokens: of texts and chats, by `_digest`; None where nobody can tell."""

    model: str
    window: int | None = None
    tokens: dict[str, int | None] = field(default_factory=dict)

    def take(self, other: "_Counts") -> None:
        """Know what the other knows, too."""
        self.tokens.update(other.tokens)
        self.window = self.window if other.window is None else other.window

    def to_json(self) -> str:
        return json.dumps({"key": _COUNTS, **vars(self)})


class Recording(ChatModel):
    """Answers from a file, and, where it has an endpoint, asks that what the file does not hold and writes it down.

    With an endpoint it is a cache: a stopped run goes on, and pays for nothing twice. Without one it works offline. A request is known
    by the model's name and everything in it. What is sampled without a seed is answered as often as it was recorded, in that order;
    anything else is asked once, however many ask at a time, and always has its first answer. Failures are written down, too: an endpoint
    is asked again, offline they are raised again. The window and the token counts that were asked for are kept, so that a run can be
    replayed offline; they are written with the next answer, or by `flush`.

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
        self.replayed = 0  # answers from the file; offline those that it gave before, as when the run was recorded
        self._lock = threading.Condition()
        self._under_way: set[str] = set()  # what the endpoint is being asked, and who asks for the same waits for
        self._answers: dict[str, list[Completion]] = {}
        self._errors: dict[str, EndpointError] = {}
        self._given: Counter[str] = Counter()
        lines: list[_Call | _Counts] = []
        if endpoint is None or self.path.exists():
            lines, self.healed = read_lines(self.path, _parse, "call", _BEGINNING)
        self._model = model or ("" if endpoint is not None else self._only_model({line.model for line in lines}))
        self._counted: dict[str, _Counts] = {}  # of each model, all that is known
        self._unwritten: _Counts | None = None  # what of it the file lacks
        for line in lines:
            if isinstance(line, _Call):
                self._keep(line)
            else:
                self._counts(line.model).take(line)

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
        """That of the endpoint, if it can tell; offline the one that was recorded."""
        known = self._counts(self.name).window
        if self.endpoint is None:
            return known
        window = self.endpoint.window
        if window != known:
            self._learn(_Counts(model=self.name, window=window))
        return window

    def count(self, text: str) -> int | None:
        """Tokens of a text, if the endpoint can tell, which is asked once. Raises: InputError offline for one that was not counted."""
        return self._tokens(text, lambda model: model.count(text))

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens of a chat, if the endpoint can tell, which is asked once. Raises: InputError offline for one that was not counted."""
        chat = [dict(message) for message in messages]
        return self._tokens(chat, lambda model: model.count_chat(chat))

    def flush(self) -> None:
        """Write down what was counted since the last answer. Raises: InputError where the file cannot be written."""
        with self._lock:
            self._append([])

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
        asked = request.messages[-1]["content"] if request.prompt is None else request.prompt
        raise self._missing(asked)

    def _recorded(self, key: str, request: Request) -> Completion | None:
        answers = self._answers.get(key, [])
        turn = self._given[key] if request.by_chance else 0
        self._given[key] += 1
        if turn >= len(answers):
            return None
        again = self._given[key] > 1 and not request.by_chance
        self.replayed += self.endpoint is not None or again
        return answers[turn]

    def _missing(self, text: object) -> InputError:
        remedy = "it replays a run as it was: give it the same documents, task and settings, or ask the model"
        return InputError(f"{self.path} has no such call ({_excerpt(text)}); {remedy}")

    def _tokens(self, text: str | list[dict[str, Any]], ask: Callable[[ChatModel], int | None]) -> int | None:
        """Tokens of a text or of a chat, which no model is asked twice. Raises: InputError offline for what was not counted."""
        name, digest = self.name, _digest(text)
        with self._lock:
            tokens = self._counts(name).tokens
        known = tokens.get(digest)
        if known is not None:
            return known
        if self.endpoint is None:
            if digest not in tokens and any(number is not None for number in tokens.values()):
                raise self._missing(text if isinstance(text, str) else text[-1]["content"])
            return None
        counted = ask(self.endpoint)
        if counted is not None or digest not in tokens:
            self._learn(_Counts(model=name, tokens={digest: counted}))
        return counted

    def _counts(self, name: str) -> _Counts:
        return self._counted.setdefault(name, _Counts(model=name))

    def _learn(self, found: _Counts) -> None:
        with self._lock:
            self._unwritten = self._unwritten or _Counts(model=found.model)
            self._unwritten.take(found)
            self._counts(found.model).take(found)

    def _write(self, call: _Call) -> None:
        with self._lock:
            self._append([call.to_json()])
            self._keep(call)

    def _append(self, lines: Sequence[str]) -> None:
        """Write lines, after what was counted for them."""
        counted, self._unwritten = self._unwritten, None
        lines = lines if counted is None else [counted.to_json(), *lines]
        if lines:
            append_lines(self.path, lines, "call")

    def _keep(self, call: _Call) -> None:
        if call.answer is not None:
            self._answers.setdefault(call.key, []).append(call.answer)
        if call.error is not None:
            self._errors[call.key] = call.error

    def _only_model(self, names: set[str]) -> str:
        if len(names) != 1:
            several = f"has answers of {', '.join(sorted(names))}; name one model (--served-model)"
            raise InputError(f"{self.path} {several if names else 'has no answers; name an endpoint'}")
        return names.pop()


def key_of(model: str, request: Request) -> str:
    """What a request is found by: a hash of everything that determines the answer."""
    return hashlib.sha256(json.dumps([model, asdict(request)], sort_keys=True).encode()).hexdigest()


def _digest(text: str | list[dict[str, Any]]) -> str:
    """What a text, or a chat, whose tokens were counted is found by."""
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def _excerpt(text: object) -> str:
    shown = " ".join(str(text).split())
    return repr(shown if len(shown) <= 60 else f"{shown[:59]}…")


def _parse(line: bytes) -> _Call | _Counts | None:
    """None for what is neither."""
    try:
        said = json.loads(line)
        if said["key"] == _COUNTS:
            return _counts(**said)
        if (answer := said.pop("answer")) is not None:
            logprobs = answer.pop("logprobs")
            answer = Completion(**answer, logprobs=None if logprobs is None else tuple(TokenLogprob(**each) for each in logprobs))
        if (error := said.pop("error")) is not None:
            error = _KINDS[error.pop("kind")](error.pop("url"), error.pop("message"), **error)
        return _Call(**said, answer=answer, error=error)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _counts(*, key: str, model: str, window: int | None, tokens: Mapping[str, int | None]) -> _Counts | None:
    fine = isinstance(model, str) and all(isinstance(number, int | None) for number in (window, *tokens.values()))
    return _Counts(model=model, window=window, tokens=dict(tokens)) if fine else None
