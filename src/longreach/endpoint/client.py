"""A client for any endpoint that speaks OpenAI's protocol: patient with what passes, plain about what does not."""

import json
import random
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Self, TypeVar

import longreach
from longreach.core.errors import InputError
from longreach.endpoint.address import api_key as key_for
from longreach.endpoint.address import base_address
from longreach.endpoint.base import ChatModel, Completion, Request
from longreach.endpoint.errors import (
    ContextLengthError,
    EndpointError,
    Failure,
    Patience,
    UnusableEndpointError,
    complained,
    nonsense,
    page_title,
    refusal,
)
from longreach.endpoint.pacing import Pacer, backoff
from longreach.endpoint.streamed import put_together
from longreach.endpoint.wire import Dialect, completion_of

T = TypeVar("T")
Read = Callable[[Mapping[str, Any], float], T | None]  # (reply, seconds that it took) -> what was asked for, if it is there

_CONNECT = 10.0  # seconds within which somebody listens or nobody does
_SHOWN = 10  # models that are listed


class Endpoint(ChatModel):
    """A model behind a URL. Threads may share it; it keeps connections open until `close` or the end of a `with` block.

    Args: url: with or without `/v1`, or any address of the protocol below it. model: its name; by default the only one that the endpoint
    serves. api_key: default: LONGREACH_API_KEY or OPENAI_API_KEY of the environment; "" sends none. timeout: seconds without a byte of
    the answer; long ones are asked for in parts, where the server gives them so. retries: of a request, where the server is busy (429),
    failing (5xx) or silent; what hardly passes, nobody listening or a reply that is none, is tried again twice at most. concurrency:
    requests at a time, in all. requests_per_minute: no more are begun, evenly. sleep, now, chance: seconds, as in `time`, and what waits
    are drawn from.

    Raises: InputError for an address, a key or a number that cannot be meant.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 300.0,
        retries: int = 6,
        concurrency: int = 8,
        requests_per_minute: float | None = None,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        import httpx2

        for name, value, least in (("retries", retries, 0), ("concurrency", concurrency, 1)):
            if value < least:
                raise InputError(f"{name}={value} must be {least} or more")
        for name, limit in (("timeout", timeout), ("requests_per_minute", requests_per_minute)):
            if limit is not None and not limit > 0:
                raise InputError(f"{name}={limit} must be above 0")
        self.url = base_address(url)
        self.timeout, self.retries = timeout, retries
        self._concurrency = concurrency
        self._key = key_for(api_key)
        self._model = model
        self._naming = threading.Lock()
        self._dialect = Dialect()
        self._counts = True  # until the server turns out not to
        self._window: int | None = None
        self._asked_window = False
        self._turns = threading.BoundedSemaphore(concurrency)
        self._pacer = Pacer(requests_per_minute, sleep, now)
        self._sleep, self._now = sleep, now
        self._chance = chance or random.Random()  # noqa: S311 - when to try again is no secret
        self._http = httpx2.Client(
            headers={"user-agent": f"longreach/{longreach.__version__}"} | ({"authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT), pool=None),
            limits=httpx2.Limits(max_keepalive_connections=concurrency),
            verify=self.url.startswith("https:"),  # reading the certificates that http does not need takes longer than most answers
        )

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, {self._model!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def name(self) -> str:
        """The model's name; the endpoint is asked for it where none was given. Raises: InputError, EndpointError."""
        with self._naming:
            if self._model is None:
                self._model = self._only_model()
            return self._model

    @property
    def concurrency(self) -> int:
        """How many requests are answered at a time."""
        return self._concurrency

    def ask(self, request: Request) -> Completion:
        """Answer a request. Raises: EndpointError; InputError where the endpoint serves several models and none was named.

        Warns: where the model takes no temperature, and samples at its own.
        """
        path = "/chat/completions" if request.prompt is None else "/completions"
        earlier = 0
        while True:
            body = self._dialect.body(request, self.name)
            try:
                answer, attempts = self._exchange("POST", f"{self.url}{path}", body, completion_of, earlier)
            except EndpointError as error:
                if not self._adapt(error, body):
                    raise
                earlier = error.attempts
            else:
                return replace(answer, attempts=attempts)

    @property
    def window(self) -> int | None:
        """The window as vLLM, SGLang, OpenRouter or longreach state it in the list of models; None for servers that do not.

        Raises: InputError, EndpointError.
        """
        name = self.name
        with self._naming:
            if not self._asked_window:
                try:
                    windows, _ = self._exchange("GET", f"{self.url}/models", None, _windows)
                except UnusableEndpointError as error:
                    if error.status not in (404, 405):
                        raise
                    windows = {}
                self._window, self._asked_window = windows.get(name), True
            return self._window

    def count(self, text: str) -> int | None:
        """Tokens of a text, as vLLM and llama.cpp count them at `/tokenize`; None for other servers. Raises: EndpointError."""
        if not self._counts:
            return None
        body = {"model": self.name, "prompt": text, "add_special_tokens": False, "content": text, "add_special": False}
        try:
            return self._exchange("POST", f"{self.url.removesuffix('/v1')}/tokenize", body, _tokens)[0]
        except ContextLengthError:
            raise
        except EndpointError as error:
            if error.status is None or error.status in (408, 429) or error.status >= 500:
                raise
            self._counts = False
            return None

    def _only_model(self) -> str:
        try:
            names, _ = self._exchange("GET", f"{self.url}/models", None, _models)
        except UnusableEndpointError as error:
            if error.status not in (404, 405):
                raise
            raise InputError(f"{self.url} does not say which models it serves; name one") from None
        if len(names) != 1:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            listed = f"serves {', '.join(names[:_SHOWN])}{more}; name one" if names else "serves no model"
            raise InputError(f"{self.url} {listed}")
        return names[0]

    def _adapt(self, error: EndpointError, body: Mapping[str, Any]) -> bool:
        """Whether the request may be sent again, in another form that the server takes."""
        told = self._dialect.temperature
        if self._dialect.adapt(error.field, body):
            if told and not self._dialect.temperature:
                warnings.warn(f"{self.url}: {self._model} takes no temperature; it samples at its own", stacklevel=4)
            return True
        if error.field in ("continue_final_message", "add_generation_prompt"):
            raise EndpointError(
                self.url, "does not go on from the beginning of an answer; leave out prefix", status=error.status, attempts=error.attempts
            ) from None
        return False

    def _exchange(self, method: str, url: str, body: Mapping[str, Any] | None, read: Read[T], earlier: int = 0) -> tuple[T, int]:
        """What `read` makes of the reply, and how many tries it took, beside earlier ones; a failure is tried again as it deserves."""
        attempts = 0
        while True:
            attempts += 1
            with self._turns:
                self._pacer.wait()
                outcome = self._try(method, url, body, read)
            if not isinstance(outcome, Failure):
                return outcome, earlier + attempts
            patience = outcome.patience.value
            if attempts > (self.retries if patience is None else min(patience, self.retries)):
                raise outcome.error(self.url, earlier + attempts, self._key)
            wait = backoff(attempts, self._chance) if outcome.wait is None else outcome.wait
            if outcome.status == 429:
                self._pacer.pause(wait)
            else:
                self._sleep(wait)

    def _try(self, method: str, url: str, body: Mapping[str, Any] | None, read: Read[T]) -> T | Failure:
        import httpx2

        content = None if body is None else json.dumps(body).encode()
        began, said = self._now(), None
        try:
            with self._http.stream(method, url, content=content, headers={"content-type": "application/json"}) as reply:
                in_parts = reply.is_success and reply.headers.get("content-type", "").startswith("text/event-stream")
                said = put_together(reply.iter_lines()) if in_parts else reply.read()
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            why = str(error).partition("] ")[2] or str(error) or "no connection"
            message, remedy = f"cannot be reached: {why}", "; is the server running, and is this its address?"
            return Failure(message=message, remedy=remedy, patience=Patience.SHORT, everybody=True)
        except httpx2.TimeoutException:
            return nonsense(f"no answer within {self.timeout:g} s; give it a longer timeout")
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            return nonsense(f"the connection broke: {error}")
        except (ValueError, RecursionError) as error:
            return nonsense(f"a part of the answer is no JSON: {error}")
        seconds = self._now() - began
        if in_parts:
            return nonsense("the answer broke off") if said is None else _read(said, seconds, reply.headers, read)
        if not reply.is_success:
            return refusal(reply.status_code, reply.headers, reply.content)
        try:
            said = json.loads(reply.content, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            return nonsense(f"the reply is no JSON: {page_title(reply.content)}", reply.status_code)
        return _read(said, seconds, reply.headers, read)


def _read(said: Any, seconds: float, headers: Mapping[str, str], read: Read[T]) -> T | Failure:
    """What a reply of status 200 says; servers that pass on what others say may say there that those failed."""
    if isinstance(said, dict) and said.get("error"):
        code = said["error"].get("code") if isinstance(said["error"], dict) else None
        return complained(said, code if isinstance(code, int) and 400 <= code < 600 else 200, headers)
    try:
        found = read(said, seconds) if isinstance(said, dict) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        found = None
    return nonsense(f"the reply has nothing that was asked for: {json.dumps(said)}", 200) if found is None else found


def _models(reply: Mapping[str, Any], _: float) -> list[str]:
    return [str(model["id"]) for model in reply["data"]]


def _windows(reply: Mapping[str, Any], _: float) -> dict[str, int]:
    """Name -> window of the models that state theirs."""
    found = {}
    for model in reply["data"]:
        own = model.get("longreach")
        stated = [own.get("window") if isinstance(own, dict) else None, model.get("max_model_len"), model.get("context_length")]
        windows = [number for number in stated if isinstance(number, int) and number > 0]
        if windows:
            found[str(model["id"])] = windows[0]
    return found


def _tokens(reply: Mapping[str, Any], _: float) -> int | None:
    """vLLM counts them; llama.cpp lists them."""
    count = reply["count"] if "count" in reply else len(reply["tokens"])
    return count if isinstance(count, int) else None
