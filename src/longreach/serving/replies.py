"""Replies of OpenAI's protocol, whole and in chunks."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

from longreach.conversation.reply import Receipt
from longreach.serving.job import TokenChoice

_LEAST = -9999.0  # log-probability that stands for minus infinity, which JSON lacks
_BROKEN = "\ufffd"

Decode = Callable[[int], str]


@dataclass(kw_only=True)
class Account:
    """What an answer cost, and what there is to say of it.

    Args: prompt, written, reused: tokens. profile, window: that it was read and written under. receipt: of a chat. ledger: of documents
    that a workflow read.
    """

    prompt: int
    profile: str
    window: int | None
    receipt: Receipt | None = None
    written: int = 0
    reused: int = 0
    ledger: Mapping[str, Any] | None = None

    @property
    def usage(self) -> dict[str, Any]:
        """OpenAI's object."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.written,
            "total_tokens": self.prompt + self.written,
            "prompt_tokens_details": {"cached_tokens": self.reused},
        }

    @property
    def own(self) -> dict[str, Any]:
        """What stands under `longreach`."""
        found: dict[str, Any] = {"profile": self.profile, "window": self.window, "reused": self.reused}
        if self.receipt is not None:
            total = self.prompt + self.written
            found["receipt"] = asdict(replace(self.receipt, kept=total, seen=total)) | {"says": str(self.receipt)}
        if self.ledger is not None:
            found["ledger"] = dict(self.ledger)
        return found


@dataclass(kw_only=True)
class WholeChoice:
    """A choice of a reply while it comes in. Args: calls: of tools. chosen: tokens with log-probabilities, where they were asked for."""

    text: str = ""
    reason: str | None = None
    calls: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[TokenChoice] = field(default_factory=list)


class ReplyForm:
    """The form of the replies to one request.

    Args: chat: of /v1/chat/completions, else of /v1/completions. decode: id -> text. logprobs: whether they are told.
    """

    def __init__(self, model: str, *, chat: bool, decode: Decode, logprobs: bool) -> None:
        self.chat, self._decode, self._logprobs = chat, decode, logprobs
        self._told_before: Counter[int] = Counter()  # characters of tokens, by choice
        self._head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, choices: Sequence[WholeChoice], account: Account) -> dict[str, Any]:
        """The reply."""
        return {
            **self._head,
            "object": "chat.completion" if self.chat else "text_completion",
            "choices": [self._choice(number, each) for number, each in enumerate(choices)],
            "usage": account.usage,
            "longreach": account.own,
        }

    def begin(self, choice: int) -> dict[str, Any]:
        """The first chunk of a choice of a chat."""
        return self._chunk([self._delta(choice, {"role": "assistant", "content": ""}, (), None)])

    def piece(self, choice: int, text: str, chosen: Sequence[TokenChoice]) -> dict[str, Any]:
        """A chunk with text."""
        return self._chunk([self._delta(choice, {"content": text}, chosen, None)])

    def call(self, choice: int, number: int, call: Mapping[str, Any]) -> dict[str, Any]:
        """A chunk with a call of a tool."""
        return self._chunk([self._delta(choice, {"tool_calls": [{"index": number, **call}]}, (), None)])

    def end(self, choice: int, reason: str) -> dict[str, Any]:
        """The last chunk of a choice."""
        return self._chunk([self._delta(choice, {}, (), reason)])

    def last(self, account: Account) -> dict[str, Any]:
        """The last chunk of a stream with the counts of tokens."""
        return {**self._chunk([]), "longreach": account.own, "usage": account.usage}

    def progress(self, stage: str, done: int, total: int) -> dict[str, Any]:
        """A chunk that tells how far reading is."""
        return {**self._chunk([]), "longreach": {"progress": {"stage": stage, "done": done, "total": total}}}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk" if self.chat else "text_completion", "choices": choices}

    def _delta(self, choice: int, delta: dict[str, Any], chosen: Sequence[TokenChoice], reason: str | None) -> dict[str, Any]:
        said = {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        return {"index": choice, **said, "logprobs": self._told(choice, chosen) if chosen else None, "finish_reason": reason}

    def _choice(self, number: int, found: WholeChoice) -> dict[str, Any]:
        said: dict[str, Any] = {"text": found.text}
        if self.chat:
            message = {"role": "assistant", "content": found.text or (None if found.calls else "")}
            said = {"message": message | ({"tool_calls": found.calls} if found.calls else {})}
        return {
            "index": number,
            **said,
            "logprobs": self._told(number, found.chosen) if self._logprobs else None,
            "finish_reason": found.reason,
        }

    def _told(self, choice: int, chosen: Sequence[TokenChoice]) -> dict[str, Any]:
        if self.chat:
            return {"content": [self._token(each.token, each.logprob) | {"top_logprobs": self._tops(each)} for each in chosen]}
        texts = [self._decode(each.token) for each in chosen]
        ends = list(accumulate(map(len, texts), initial=self._told_before[choice]))
        self._told_before[choice] = ends[-1]
        return {
            "tokens": texts,
            "token_logprobs": [_finite(each.logprob) for each in chosen],
            "top_logprobs": [{self._decode(token): _finite(logprob) for token, logprob in each.top} for each in chosen],
            "text_offset": ends[:-1],
        }

    def _tops(self, chosen: TokenChoice) -> list[dict[str, Any]]:
        return [self._token(token, logprob) for token, logprob in chosen.top]

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = self._decode(token)
        return {"token": text, "logprob": _finite(logprob), "bytes": None if _BROKEN in text else list(text.encode())}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
