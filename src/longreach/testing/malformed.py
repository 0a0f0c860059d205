"""Bodies of requests as no client should send them: what a server has to refuse in one line, and survive."""

import json
import random
from collections.abc import Iterator
from typing import Any

_JUNK: tuple[Any, ...] = (
    -1, 0, 10**30, -(10**400), 1e308, 0.5, True, False, "", "a", "\0", "\ud800", "x" * 5000, "😀" * 50, [], [[]], [None], [1, "a"], {},
    {"a": {}}, {"role": "user"}, [{"role": "user", "content": [{"type": "file", "file": {"file_id": "../../etc/passwd"}}]}],
    [{"role": "tool", "content": "a"}], [{"role": "user", "content": {"text": 1}}], [1 << 70], [-1], [True],
)  # fmt: skip
_FIELDS = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "min_tokens", "temperature", "top_p", "top_k", "n", "seed",
    "stop", "stream", "stream_options", "logprobs", "top_logprobs", "tools", "tool_choice", "longreach", "echo", "user", "response_format",
    "what",
)  # fmt: skip
_RAW = (
    b"",
    b"null",
    b"[1]",
    b"{",
    b'{"a": 1,}',
    b"\xff\xfe{}",
    b"NaN",
    b'{"model": Infinity}',
    b"[" * 20_000,
    b'{"a":' * 5_000,
    b"\0" * 100,
)


def malformed_bodies(count: int, *, model: str, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(path, body) of so many requests, of chats and completions; the same for the same seed. A few of them may be sound by chance.

    Args: model: that the server serves.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(count):
        chat = rng.random() < 0.7
        path = "/v1/chat/completions" if chat else "/v1/completions"
        sound = {"model": model, "max_tokens": 1, **({"messages": [{"role": "user", "content": "a"}]} if chat else {"prompt": "a"})}
        kind = rng.randrange(10)
        if kind == 0:
            yield path, rng.choice(_RAW)
        elif kind == 1:
            written = json.dumps(sound).encode()
            yield path, written[: rng.randrange(len(written))]
        elif kind == 2:
            yield path, bytes(rng.randrange(256) for _ in range(rng.randrange(200)))
        else:
            yield path, json.dumps(_spoilt(sound, rng)).encode()


def _spoilt(sound: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    body = dict(sound)
    for _ in range(rng.randrange(1, 4)):
        field, value = rng.choice(_FIELDS), rng.choice(_JUNK)
        if field == "messages" and rng.random() < 0.5:
            message = {"role": "user", "content": "a", rng.choice(("role", "content", "name", "tool_calls", "tool_call_id", "x")): value}
            value = [message]
        elif field == "longreach" and rng.random() < 0.7:
            value = {rng.choice(("overflow", "read", "progress", "thinking_budget", "x")): value}
        elif field == "tools" and rng.random() < 0.7:
            value = [{"type": "function", "function": {"name": value}}]
        body[field] = value
    if rng.random() < 0.1:
        body.pop(rng.choice(sorted(body)))
        body.setdefault("max_tokens", 1)  # without it an answer would be long
    return body
