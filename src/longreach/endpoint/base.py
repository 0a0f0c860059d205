"""What answers chats and prompts: the contract that endpoints, recordings of them and models in this process share."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from longreach.core.errors import InputError
from longreach.endpoint.errors import EndpointError
from longreach.endpoint.ordered import in_order

MOST_LOGPROBS = 20  # alternatives a token, by OpenAI's protocol


@dataclass(frozen=True, kw_only=True)
class Request:
    """A chat that is to be answered, or a prompt to be completed.

    Args: messages: `{"role": ..., "content": ...}` each. prompt: instead of messages. most_tokens: that may be written (>= 1).
    temperature: 0 is greedy. seed: of the sampling. stop: texts before which writing ends. prefix: how the answer to a chat begins; the
    endpoint goes on from there. logprobs: how many alternatives of each token to give with their log-probabilities (0 to 20; 0 gives
    those of the written tokens alone, None gives none).
    Raises: InputError for what is out of range.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    prompt: str | None = None
    most_tokens: int
    temperature: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    prefix: str = ""
    logprobs: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "messages", tuple(dict(message) for message in self.messages))
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        object.__setattr__(self, "temperature", float(self.temperature))
        if bool(self.messages) == (self.prompt is not None):
            raise InputError("a request has either messages or a prompt")
        if not all({"role", "content"} <= message.keys() for message in self.messages):
            raise InputError("each message of a request has a role and a content")
        if self.prompt is not None and self.prefix:
            raise InputError("prefix begins the answer to a chat; put it at the end of the prompt")
        if self.most_tokens < 1:
            raise InputError(f"most_tokens={self.most_tokens} must be 1 or more")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature={self.temperature} must be 0 or more")
        if self.logprobs is not None and not 0 <= self.logprobs <= MOST_LOGPROBS:
            raise InputError(f"logprobs={self.logprobs} must be between 0 and {MOST_LOGPROBS}")

    @property
    def by_chance(self) -> bool:
        """Whether the same request may be meant to get another answer."""
        return self.temperature > 0 and self.seed is None


@dataclass(frozen=True, kw_only=True)
class TokenLogprob:
    """A written token. Args: logprob: natural; None where the server gives none. top: token -> logprob of the likeliest alternatives."""

    token: str
    logprob: float | None
    top: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What was answered.

    Args: text: that was written, after the prefix. finish_reason: as the server says: `stop`, `length` for what was cut at a limit, or
    another word of its own. prompt_tokens, completion_tokens: as the server counts them, if it does. seconds: from asking to the whole
    answer, at the last try. attempts: how often it was asked. reasoning: what was thought before, where the server keeps it apart.
    logprobs: of the written tokens, if they were asked for and the server gives them.
    """

    text: str
    finish_reason: str | None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seconds: float
    attempts: int = 1
    reasoning: str = ""
    logprobs: tuple[TokenLogprob, ...] | None = None

    @property
    def cut(self) -> bool:
        """Whether the text ends at a limit and not by itself."""
        return self.finish_reason == "length"


class ChatModel(Protocol):
    """Answers chats and completes prompts. Whoever derives from it defines `name`, `ask` and `count`, and has the rest."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The model's name, as results are to state it."""

    @property
    def concurrency(self) -> int:
        """How many requests are answered at a time."""
        return 1

    @property
    def window(self) -> int | None:
        """Tokens that prompt and answer may have together; None where nobody can tell. Raises: EndpointError."""
        return None

    @abstractmethod
    def ask(self, request: Request) -> Completion:
        """Answer a request. Raises: EndpointError."""

    @abstractmethod
    def count(self, text: str) -> int | None:
        """Tokens of a text, without any that mark its beginning or end; None where nobody can tell."""

    def count_chat(self, messages: Sequence[Mapping[str, Any]]) -> int | None:
        """Tokens of the prompt that a chat makes, with all that its template adds; None where nobody can tell."""
        return None

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        most_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        prefix: str = "",
        logprobs: int | None = None,
    ) -> Completion:
        """Answer a chat; the arguments are those of `Request`. Raises: InputError, EndpointError."""
        return self.ask(
            Request(
                messages=messages,
                most_tokens=most_tokens,
                temperature=temperature,
                seed=seed,
                stop=stop,
                prefix=prefix,
                logprobs=logprobs,
            )
        )

    def complete(
        self,
        prompt: str,
        *,
        most_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        logprobs: int | None = None,
    ) -> Completion:
        """Go on with a text, outside any chat; the arguments are those of `Request`. Raises: InputError, EndpointError."""
        return self.ask(Request(prompt=prompt, most_tokens=most_tokens, temperature=temperature, seed=seed, stop=stop, logprobs=logprobs))

    def many(self, requests: Iterable[Request]) -> Iterator[Completion | EndpointError]:
        """Answer many requests, `concurrency` at a time, in their order; one that failed yields its error.

        Requests are taken as they are needed, a few ahead. Closing the iterator asks nothing more.
        Raises: UnusableEndpointError where no request could succeed any more, and whatever else is no failure of one request.
        """
        return in_order(self.ask, requests, self.concurrency)
