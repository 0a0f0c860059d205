"""What goes wrong with endpoints, and how what they say of it is read. Messages are one line and never hold the key."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from longreach.core.errors import LongreachError
from longreach.endpoint.pacing import retry_after

LONGEST_MESSAGE = 300  # characters of a server's own words
LONGEST_WAIT = 300.0  # seconds that a server may ask to wait

_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
_LIMIT = re.compile(
    r"(?:context (?:length|size|window)|maximum model length)\D{0,20}?(\d+)"  # OpenAI, vLLM, SGLang, llama.cpp, llama-cpp-python
    r"|exceed the configured limit of (\d+)",  # OpenAI
    re.IGNORECASE,
)
_EXCEEDS = re.compile(r"exceeds? the (?:available |model's |maximum )*context (?:length|size|window)", re.IGNORECASE)
_NOT_TAKEN = re.compile(r"unsupported|not support|unrecognized|unknown|only the default|extra_forbidden|extra inputs", re.IGNORECASE)
_OPTIONAL = (  # fields that some servers do not take
    "max_tokens", "temperature", "continue_final_message", "add_generation_prompt", "stream_options", "stream",
)  # fmt: skip


class EndpointError(LongreachError):
    """A request that got no answer.

    Args: url: of the endpoint. message: what is wrong, in the server's own words where it has some. status: of HTTP; None where there was
    no reply. attempts: how often it was asked. field: of the request, which the server does not take, where it says so.
    """

    def __init__(self, url: str, message: str, *, status: int | None = None, attempts: int = 1, field: str | None = None) -> None:
        self.url, self.message, self.status, self.attempts, self.field = url, message, status, attempts, field
        super().__init__(f"{url}: {message}{f' ({attempts} tries)' if attempts > 1 else ''}")


class UnusableEndpointError(EndpointError):
    """An endpoint that no request would get an answer from: nobody listens, the key is refused, there is no such model."""


class ContextLengthError(EndpointError):
    """A request that is longer than the endpoint's window. Args: limit: the window, tokens, where the server says so."""

    def __init__(self, url: str, message: str, *, limit: int | None = None, **more: Any) -> None:
        self.limit = limit
        super().__init__(url, message, **more)


class Patience(Enum):
    """How often what failed is tried again: never, twice at most, or as often as the endpoint was told to."""

    NONE = 0
    SHORT = 2
    LONG = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A try that failed.

    Args: remedy: what to do, behind the message. wait: seconds that the server asks for. everybody: whether no other request would fare
    better. too_long: whether the request is longer than the window, which is `limit` tokens. field: of the request, which is not taken.
    """

    message: str
    remedy: str = ""
    status: int | None = None
    patience: Patience = Patience.NONE
    wait: float | None = None
    everybody: bool = False
    too_long: bool = False
    limit: int | None = None
    field: str | None = None

    def error(self, url: str, attempts: int, secret: str) -> EndpointError:
        """The same as an error, without the secret."""
        message = one_line(self.message.replace(secret, "[key]") if secret else self.message) + self.remedy
        if self.too_long:
            return ContextLengthError(url, message, limit=self.limit, status=self.status, attempts=attempts)
        if self.everybody:
            return UnusableEndpointError(url, message, status=self.status, attempts=attempts)
        return EndpointError(url, message, status=self.status, attempts=attempts, field=self.field)


def nonsense(what: str, status: int | None = None) -> Failure:
    """A reply that is none: it may be better next time, but not for long."""
    return Failure(message=what, status=status, patience=Patience.SHORT)


def refusal(status: int, headers: Mapping[str, str], content: bytes) -> Failure:
    """A reply whose status is not 2xx."""
    if 300 <= status < 400:
        message = f"{status}, sends on to {headers.get('location', 'nowhere')}"
        return Failure(message=message, remedy="; give that address", status=status, everybody=True)
    return complained(_json(content), status, headers, fallback=page_title(content))


def complained(reply: Any, status: int, headers: Mapping[str, str], fallback: str = "") -> Failure:
    """What a server complains of in `reply`, JSON of any of the forms in use, or in `fallback`, where that says nothing.

    Args: status: of HTTP, or, for an error in a reply of 200, the one that it states.
    """
    error = _error_in(reply)
    said = str(error.get("message") or error.get("detail") or fallback)
    codes = [str(error.get(key, "")) for key in ("code", "type")]
    message = f"{status}: {said}" if said else f"{status}, without a word"
    found = _LIMIT.search(said)
    if any(code in _TOO_LONG for code in codes) or (status in (400, 413, 422) and (found or _EXCEEDS.search(said))):
        limit = int(found[1] or found[2]) if found else None
        stated = error.get("n_ctx")
        return Failure(message=message, status=status, too_long=True, limit=stated if isinstance(stated, int) else limit)
    if status in (408, 429) or status >= 500:
        return _later(message, status, retry_after(headers), codes)
    if status in (401, 402, 404, 405):
        remedy = "; set LONGREACH_API_KEY to a key that this endpoint takes" if status == 401 else ""
        return Failure(message=message, remedy=remedy, status=status, everybody=True)
    patience = Patience.SHORT if status < 300 else Patience.NONE
    return Failure(message=message, status=status, patience=patience, field=_field_in(error, said))


def _later(message: str, status: int, wait: float | None, codes: list[str]) -> Failure:
    """What a server may answer at another time."""
    if "insufficient_quota" in codes:
        return Failure(message=message, status=status, everybody=True)
    if wait is not None and wait > LONGEST_WAIT:
        return Failure(message=f"asks to wait {wait:.0f} s; {message}", status=status)
    return Failure(message=message, status=status, patience=Patience.LONG, wait=wait)


def _error_in(reply: Any) -> dict[str, Any]:
    """The error object: under `error` (OpenAI), the reply itself (older vLLM, FastAPI), or a text under `error` (Ollama, TGI)."""
    if not isinstance(reply, dict):
        return {}
    error = reply.get("error") or reply
    return error if isinstance(error, dict) else {"message": error}


def _field_in(error: Mapping[str, Any], said: str) -> str | None:
    if not _NOT_TAKEN.search(f"{error.get('code')} {error.get('type')} {said}"):
        return None
    named = [field for field in _OPTIONAL if re.search(rf"\b{field}\b", said)]
    return error.get("param") if error.get("param") in _OPTIONAL else next(iter(named), None)


def page_title(content: bytes) -> str:
    """What a reply that is no JSON says: the title of a web page, or the text itself."""
    text = content.decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    return f"a web page, {title[1]!r}" if title else text


def one_line(text: str) -> str:
    """A text without line breaks, and with no more characters than a message may have."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 1]}…"


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None
