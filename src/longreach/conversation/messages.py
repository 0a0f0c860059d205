"""Messages as chat models take them (`role`, `content`, `tool_calls`), the turns that they make up, and the file that keeps them."""

import copy
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from longreach.core.errors import InputError
from longreach.core.files import write_text

Message = dict[str, Any]
Turn = list[Message]

_ROLES = ("system", "user", "assistant", "tool")


def check_messages(messages: Iterable[Any]) -> list[Message]:
    """A copy of messages that make up a conversation.

    Raises: InputError for a role that is unknown, an empty message, a result without a call, and a call without its results.
    """
    found: list[Message] = []
    for number, message in enumerate(messages, 1):
        _check_message(message, f"message {number}")
        found.append(copy.deepcopy(message))
    _check_calls(found)
    return found


def _check_message(message: Any, name: str) -> None:
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise InputError(f'{name} has no role; write {{"role": "user", "content": "..."}}, with one of the roles {", ".join(_ROLES)}')
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str):
        raise InputError(f"{name}: its content is a text, not a {type(content).__name__}")
    if calls is not None and (message["role"] != "assistant" or not all(isinstance(call, dict) for call in calls)):
        raise InputError(f"{name}: tool_calls are a list of calls, of a message of the assistant")
    if message["role"] in ("user", "system") and not (content or "").strip():
        raise InputError("the message is empty" if message["role"] == "user" else "the system prompt is empty")
    if message["role"] == "assistant" and content is None and not calls:
        raise InputError(f"{name} of the assistant has neither content nor tool_calls")
    if message["role"] == "tool" and content is None:
        raise InputError(f"{name} of a tool has no content")


def _check_calls(messages: Sequence[Message]) -> None:
    """Every result follows its call, and every call but the last has its results before the user speaks again."""
    open_calls, may_answer = 0, False
    for message in messages:
        if message["role"] == "tool":
            if not may_answer:
                raise InputError("a tool's result has to follow the assistant's message that called it")
            open_calls -= 1
            continue
        if open_calls > 0:
            raise InputError(f"the assistant called tools, and {open_calls} of their results are missing before the next message")
        may_answer = message["role"] == "assistant"
        open_calls = len(message.get("tool_calls") or ())


def split(messages: Sequence[Message]) -> tuple[list[Message], list[Turn]]:
    """The system prompt (all that the system says before anybody else), and the turns.

    A turn is a message of the user with all that follows up to the next one, so calls of tools and their results stay together; what stands
    before the first belongs to its turn.
    """
    begin = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    turns: list[Turn] = []
    spoken = False
    for message in messages[begin:]:
        if not turns or (message["role"] == "user" and spoken):
            turns.append([])
        spoken = spoken or message["role"] == "user"
        turns[-1].append(message)
    return list(messages[:begin]), turns


def joined(turns: Iterable[Turn]) -> list[Message]:
    """The messages of turns."""
    return [message for turn in turns for message in turn]


def save_messages(path: Path, messages: Sequence[Message]) -> None:
    """Write messages as a JSON list. Raises: InputError where nothing can be written there."""
    try:
        write_text(path, json.dumps(list(messages), indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def load_messages(path: Path) -> list[Message]:
    """The messages in a JSON file. Raises: InputError for a file that holds anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path} is not JSON; it has to be a list of messages, as /save writes it") from None
    if not isinstance(found, list):
        raise InputError(f"{path} holds a {type(found).__name__}; it has to be a list of messages, as /save writes it")
    try:
        return check_messages(found)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
