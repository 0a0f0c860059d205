"""Answers that come in parts, as server-sent events, put together to what they are when they come at once."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

_BESIDE = ("tokens", "token_logprobs", "top_logprobs")  # lists of log-probabilities, side by side


def put_together(lines: Iterable[str]) -> dict[str, Any] | None:
    """The reply that the lines of a stream add up to; an error, as the reply that says so; None where the answer breaks off.

    Raises: ValueError for events that are no JSON objects.
    """
    answer = _Answer()
    for line in lines:
        name, _, data = line.partition(":")
        if name != "data":  # a comment that keeps the connection open, or a field that the protocol does not use
            continue
        if data.strip() == "[DONE]":
            answer.ended = True
            break
        event = json.loads(data, parse_constant=lambda _: None)
        if not isinstance(event, dict):
            raise ValueError(f"no object: {data}")
        if event.get("error"):
            return event
        answer.add(event)
    return answer.reply() if answer.ended else None


class _Answer:
    """The first choice of a stream so far."""

    def __init__(self) -> None:
        self.ended, self._chat = False, False
        self._finish: Any = None
        self._usage: Any = None
        self._parts: dict[str, list[str]] = {"text": [], "content": [], "reasoning_content": [], "refusal": []}
        self._logprobs: dict[str, list[Any]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """An event more."""
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return
        delta = choice.get("delta")
        said = delta if isinstance(delta, dict) else {}
        self._chat = self._chat or isinstance(delta, dict)
        thought = said.get("reasoning_content") or said.get("reasoning")
        for name, part in {**said, "reasoning_content": thought, "text": choice.get("text")}.items():
            if name in self._parts and isinstance(part, str):
                self._parts[name].append(part)
        logprobs: Any = choice.get("logprobs")
        for name in ("content", *_BESIDE) if isinstance(logprobs, dict) else ():
            if isinstance(logprobs.get(name), list):
                self._logprobs.setdefault(name, []).extend(logprobs[name])
        if choice.get("finish_reason") is not None:
            self._finish, self.ended = choice["finish_reason"], True

    def reply(self) -> dict[str, Any]:
        """The same as if it had come at once."""
        joined = {name: "".join(parts) for name, parts in self._parts.items()}
        choice: dict[str, Any] = {"finish_reason": self._finish, "logprobs": self._logprobs or None}
        if self._chat:
            text = joined["content"] or (None if joined["refusal"] else "")
            choice["message"] = {"content": text, "refusal": joined["refusal"], "reasoning_content": joined["reasoning_content"]}
        else:
            choice["text"] = joined["text"]
        return {"choices": [choice], "usage": self._usage}
