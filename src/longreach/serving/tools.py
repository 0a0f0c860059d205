"""Finds calls of tools in an answer, in the Hermes form: <tool_call>{"name": ..., "arguments": {...}}</tool_call>.

Other forms stay text.
"""

import json
import secrets
from typing import Any

from longreach.serving.stops import StopText

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class CallParser:
    """Takes an answer in pieces; gives text and calls in their order. What may be the beginning of a call waits."""

    def __init__(self) -> None:
        self.calls = 0
        self._outside = StopText([_OPEN])
        self._inside: str | None = None  # what has come of a call

    def push(self, piece: str) -> list[str | dict[str, Any]]:
        """What is sure now."""
        found: list[str | dict[str, Any]] = []
        while True:
            if self._inside is None:
                text = self._outside.push(piece)
                found += [text] if text else []
                if not self._outside.found:
                    return found
                self._inside, piece = self._outside.rest[len(_OPEN) :], ""
            else:
                self._inside, piece = self._inside + piece, ""
            inside, closed, after = self._inside.partition(_CLOSE)
            if not closed:
                return found
            call = self._call(inside)
            found.append(f"{_OPEN}{inside}{_CLOSE}" if call is None else call)
            self._inside, self._outside, piece = None, StopText([_OPEN]), after

    def end(self) -> list[str | dict[str, Any]]:
        """The rest. A call that was not closed is text."""
        rest = self._outside.end() if self._inside is None else f"{_OPEN}{self._inside}"
        return [rest] if rest else []

    def _call(self, text: str) -> dict[str, Any] | None:
        """OpenAI's object for a call; None for what is none."""
        try:
            call = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(call, dict) or not isinstance(name := call.get("name"), str):
            return None
        arguments = call.get("arguments", {})
        written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        self.calls += 1
        return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": {"name": name, "arguments": written}}
